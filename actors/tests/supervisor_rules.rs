//! OTP's rules, one by one, on the core alone: every order is obeyed at once. `docs/supervisor.md` says which rule is
//! shown where.

#[path = "supervisor_rules/auto_shutdown.rs"]
mod auto_shutdown;
#[path = "supervisor_rules/bench.rs"]
mod bench;
#[path = "supervisor_rules/calls.rs"]
mod calls;
#[path = "supervisor_rules/dynamic.rs"]
mod dynamic;
#[path = "supervisor_rules/intensity.rs"]
mod intensity;
#[path = "supervisor_rules/order.rs"]
mod order;
#[path = "supervisor_rules/restarting.rs"]
mod restarting;
#[path = "supervisor_rules/specs.rs"]
mod specs;
