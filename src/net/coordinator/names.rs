//! What a ticket's names of bootstraps stand for: `host:port` for the addresses of that host, and the name of a service
//! (RFC 2782), such as `_hopline._udp.example.net`, for those of all hosts that offer it, in the order that its owner wants.
//!
//! Nothing is remembered: whoever asks again hears of what has changed meanwhile. The system looks hosts up; SRV records,
//! which it does not, are asked for at the DNS servers that it uses.

use crate::net::entropy;
use crate::net::ticket;
use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use rand::RngExt;
use std::io;
use std::net::SocketAddr;
use tokio::net::lookup_host;

/// Of a service more hosts than these are not looked up.
const MAX_HOSTS: usize = 8;

/// Where names are looked up.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Other DNS servers than the system's.
    dns: Option<ResolverConfig>,
}

impl Names {
    /// The addresses that a name stands for, the preferred ones first.
    pub(super) async fn resolve(&self, name: &str) -> io::Result<Vec<SocketAddr>> {
        if !ticket::is_service(name) {
            return Ok(lookup_host(name).await?.collect());
        }
        let hosts = self.hosts(name).await.map_err(io::Error::other)?;
        let (mut addresses, mut failure) = (Vec::new(), None);
        for host in hosts.iter().take(MAX_HOSTS) {
            let target = host.target.to_utf8();
            match lookup_host((target.trim_end_matches('.'), host.port)).await {
                Ok(found) => addresses.extend(found),
                Err(error) => failure = Some(error),
            }
        }
        failure.filter(|_| addresses.is_empty()).map_or(Ok(addresses), Err)
    }

    /// The hosts that offer a service: those of the lowest priority first, of the same one by chance, in proportion to their
    /// weights.
    async fn hosts(&self, service: &str) -> Result<Vec<SRV>, NetError> {
        let builder = match &self.dns {
            Some(config) => {
                TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        let found = builder.build()?.lookup(format!("{service}."), RecordType::SRV).await?;
        let is_host = |record| if let RData::SRV(host) = record { Some(host) } else { None };
        // A service that is decidedly not offered has one record that names the root.
        let offered = |host: &SRV| !host.target.is_root();
        let hosts = found.answers().iter().filter_map(|record| is_host(record.data.clone())).filter(offered);
        let mut rng = entropy::seeded_rng();
        // The least of exponential variates is a weighted choice (Efraimidis and Spirakis 2006).
        let mut drawn: Vec<(u16, f64, SRV)> = hosts
            .map(|host| (host.priority, -rng.random::<f64>().ln() / f64::from(host.weight), host))
            .collect();
        drawn.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        Ok(drawn.into_iter().map(|(.., host)| host).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig};
    use hickory_resolver::proto::op::{Message, OpCode};
    use hickory_resolver::proto::rr::{Name, Record};
    use tokio::net::UdpSocket;
    use tokio_util::task::AbortOnDropHandle;

    /// A DNS server that knows of one service.
    async fn dns(hosts: &'static [(u16, u16, u16, &str)]) -> (Names, AbortOnDropHandle<()>) {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let mut udp = ConnectionConfig::udp();
        udp.port = socket.local_addr().unwrap().port();
        let server = NameServerConfig::new([127, 0, 0, 1].into(), true, vec![udp]);
        let served = tokio::spawn(async move {
            let mut packet = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let question = Message::from_vec(&packet[..length]).unwrap();
                let mut answer = Message::response(question.metadata.id, OpCode::Query);
                let name = question.queries[0].name().clone();
                assert_eq!(name.to_utf8(), "_hopline._udp.example.net.");
                answer.queries = question.queries;
                for (priority, weight, port, target) in hosts {
                    let host = SRV::new(*priority, *weight, *port, Name::from_utf8(target).unwrap());
                    answer.add_answer(Record::from_rdata(name.clone(), 60, RData::SRV(host)));
                }
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        let dns = Some(ResolverConfig::from_parts(None, Vec::new(), vec![server]));
        (Names { dns }, AbortOnDropHandle::new(served))
    }

    async fn ports(names: &Names) -> Vec<u16> {
        let found = names.resolve("_hopline._udp.example.net").await.unwrap();
        assert!(found.iter().all(|address| address.ip().is_loopback()));
        found.iter().map(SocketAddr::port).collect()
    }

    #[tokio::test]
    async fn a_service_is_where_its_records_say_in_their_order() {
        let (names, _dns) =
            dns(&[(20, 1, 3, "127.0.0.1."), (10, 1000, 1, "127.0.0.1."), (10, 0, 2, "127.0.0.1.")]).await;
        assert_eq!(ports(&names).await, [1, 2, 3], "who has no weight comes after who has");
        let (names, _dns) = dns(&[(1, 1, 1, "127.0.0.1."), (1, 1, 2, "127.0.0.1.")]).await;
        let mut firsts = std::collections::BTreeSet::new();
        while firsts.len() < 2 {
            firsts.insert(ports(&names).await[0]);
        }
    }

    #[tokio::test]
    async fn a_service_that_is_not_offered_has_no_address() {
        let (names, _dns) = dns(&[(0, 0, 0, ".")]).await;
        assert!(ports(&names).await.is_empty());
        let (names, _dns) = dns(&[]).await;
        let error = names.resolve("_hopline._udp.example.net").await.unwrap_err();
        assert!(error.to_string().contains("_hopline._udp.example.net"), "{error}");
    }
}
