//! Hopline's machines in virtual time: the very code that runs in production, driven by an event queue instead of
//! sockets and clocks. A run depends on its seed alone.

mod check;
mod churn;
pub mod cli;
mod conn;
mod detection;
mod dice;
mod fault;
mod happening;
mod network;
mod node;
mod queue;
mod scenario;
mod settings;
mod splices;
mod statistics;
mod swarm;
mod trace;
mod traffic;
mod world;
