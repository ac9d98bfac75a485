//! The names of services that a ticket may have in place of bootstraps (RFC 2782), such as `_hopline._udp.example.net`: their SRV
//! records say which hosts are bootstraps.
//!
//! The system looks hosts up, but no SRV records; those are asked for at the DNS servers that it uses. Nothing is remembered, so
//! whoever asks again hears of what has changed meanwhile.
//!
//! Each bootstrap has a pool of its own, so all nodes of a network shall come to the same order: among hosts of one priority those of
//! the greatest weight come first, where other services would spread their clients by chance.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::ResolverConfig;
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{RData, RecordType};
use std::cmp::Reverse;
use std::net::IpAddr;

/// Of a service no more hosts than these are made use of.
const MAX_HOSTS: usize = 8;

/// Where names of services are looked up.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Other DNS servers than the system's.
    dns: Option<ResolverConfig>,
}

impl Names {
    /// The hosts that offer a service, each as `host:port`, in the order in which they are to be asked.
    pub(super) async fn hosts(&self, service: &str) -> Result<Vec<String>, NetError> {
        let builder = match &self.dns {
            Some(config) => {
                TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio()?,
        };
        let found = builder.build()?.lookup(format!("{service}."), RecordType::SRV).await?;
        let host = |data: &RData| if let RData::SRV(host) = data { Some(host.clone()) } else { None };
        // A service that is decidedly not offered has one record that names the root.
        let offered = |host: &SRV| !host.target.is_root() && host.port > 0;
        let records = found.answers().iter().filter_map(|record| host(&record.data));
        let mut hosts: Vec<SRV> = records.filter(offered).collect();
        hosts.sort_by_cached_key(|host| (host.priority, Reverse(host.weight), dialled(host)));
        Ok(hosts.iter().take(MAX_HOSTS).map(dialled).collect())
    }
}

/// A record's host as `host:port`. The dot at the end of a name stays: no search domain is to be tried.
fn dialled(SRV { target, port, .. }: &SRV) -> String {
    let name = target.to_ascii();
    let bare = name.trim_end_matches('.');
    format!("{}:{port}", if bare.parse::<IpAddr>().is_ok() { bare } else { &name })
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

    async fn hosts(names: &Names) -> Vec<String> {
        names.hosts("_hopline._udp.example.net").await.unwrap()
    }

    #[tokio::test]
    async fn a_service_is_where_its_records_say_in_their_order() {
        let records = &[
            (20, 9, 3, "c.example.net."),
            (10, 0, 1, "b.example.net."),
            (10, 5, 2, "127.0.0.1."),
            (10, 0, 1, "a.test."),
        ];
        let (names, _dns) = dns(records).await;
        let expected = ["127.0.0.1:2", "a.test.:1", "b.example.net.:1", "c.example.net.:3"];
        assert_eq!(hosts(&names).await, expected);
    }

    #[tokio::test]
    async fn a_service_that_is_not_offered_has_no_host() {
        let (names, _dns) = dns(&[(0, 0, 0, ".")]).await;
        assert!(hosts(&names).await.is_empty());
        let (names, _dns) = dns(&[]).await;
        let error = names.hosts("_hopline._udp.example.net").await.unwrap_err();
        assert!(error.to_string().contains("_hopline._udp.example.net"), "{error}");
    }
}
