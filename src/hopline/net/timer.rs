//! A timer that fires on time.
//!
//! The runtime's wheel turns once a millisecond and may be two late, which is as long as noticing a killed neighbour takes. Linux has
//! a finer timer that can be awaited like a socket (`timerfd_create(2)`); other systems use the runtime's.

use std::io;
use std::time::Duration;

/// One wait at a time.
#[derive(Debug)]
pub struct Timer {
    #[cfg(target_os = "linux")]
    fd: tokio::io::unix::AsyncFd<std::os::fd::OwnedFd>,
}

#[cfg(target_os = "linux")]
impl Timer {
    /// A timer of the runtime that this is called in.
    ///
    /// # Errors
    /// If the process has no file descriptor left.
    #[expect(
        deprecated,
        reason = "sound for an OwnedFd, which never becomes another; what replaces it is unsafe"
    )]
    pub fn new() -> io::Result<Self> {
        use rustix::time::{TimerfdClockId, TimerfdFlags, timerfd_create};
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        Ok(Self { fd: tokio::io::unix::AsyncFd::with_interest(fd, tokio::io::Interest::READABLE)? })
    }

    /// Waits for so long, to within some microseconds. A wait that is given up leaves nothing behind.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub async fn sleep(&self, wait: Duration) -> io::Result<()> {
        use rustix::time::{Itimerspec, TimerfdTimerFlags, Timespec, timerfd_settime};
        // Zero would disarm the timer, and nobody would ever wake.
        if wait.is_zero() {
            return Ok(());
        }
        let value = Timespec::try_from(wait).map_err(io::Error::other)?;
        let once = Itimerspec { it_interval: Timespec::default(), it_value: value };
        // This forgets an expiry that nobody has read.
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        loop {
            let mut ready = self.fd.readable().await?;
            let read = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut [0u8; 8])?));
            if let Ok(read) = read {
                return read.map(drop);
            }
        }
    }
}

#[cfg(not(target_os = "linux"))]
impl Timer {
    /// A timer of the runtime that this is called in.
    ///
    /// # Errors
    /// None here.
    pub const fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    /// Waits for so long, and up to two milliseconds more.
    ///
    /// # Errors
    /// None here.
    pub async fn sleep(&self, wait: Duration) -> io::Result<()> {
        tokio::time::sleep(wait).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    #[tokio::test]
    async fn it_never_comes_early_and_a_wait_that_was_given_up_does_not_end_the_next() {
        let timer = Timer::new().expect("a timer");
        for wait in [Duration::ZERO, Duration::from_micros(300), Duration::from_millis(3)] {
            let since = Instant::now();
            timer.sleep(wait).await.expect("sleeps");
            assert!(since.elapsed() >= wait);
            let given_up = tokio::time::timeout(Duration::from_millis(5), timer.sleep(wait * 1000)).await;
            assert_eq!(given_up.is_ok(), wait.is_zero());
        }
        // It expires while nobody awaits it.
        let given_up = tokio::time::timeout(Duration::ZERO, timer.sleep(Duration::from_millis(200))).await;
        assert!(given_up.is_err());
        tokio::time::sleep(Duration::from_millis(250)).await;
        let since = Instant::now();
        timer.sleep(Duration::from_millis(20)).await.expect("sleeps");
        assert!(since.elapsed() >= Duration::from_millis(20));
    }
}
