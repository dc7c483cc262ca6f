//! The wire contract between the kernel side and the agent.
#![no_std]
