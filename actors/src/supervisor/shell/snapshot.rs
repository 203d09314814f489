//! Drawing the tree below a supervisor.
//!
//! Owns the walk: each supervisor asks its own children that are supervisors. It must never wait in a handler; the
//! asking is a task, and each level has four fifths of the time of the level above, so that the answer of a tree with a
//! silent branch still arrives.

use std::time::Duration;

use futures_util::future::join_all;
use ractor::ActorRef;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::super::policy::ChildKind;
use super::{Msg, State, SupervisorMsg, is_supervisor};
use crate::crash_report::in_ms;
use crate::mailbox::Mailbox;
use crate::tasks::TooManyTasks;
use crate::tree::{NodeState, TreeNode};
use crate::vitals;

impl State {
    pub(super) fn snapshot(&mut self, within: Duration, reply: oneshot::Sender<TreeNode>) -> Result<(), TooManyTasks> {
        let uptime = self.born.elapsed();
        let mut nodes = Vec::new();
        for view in self.core.children(uptime) {
            let living = view.run.and_then(|run| self.living.get(&run));
            let mailbox = living.map(|child| child.vitals.waiting());
            let below = living.map(|child| &child.cell).filter(|cell| is_supervisor(cell)).cloned();
            nodes.push((TreeNode::of_child(&self.path, &view, mailbox), below.map(ActorRef::from)));
        }
        let state = if self.core.is_ending() {
            NodeState::Stopping
        } else if self.ready.is_some() {
            NodeState::Starting
        } else {
            NodeState::Running
        };
        let path = self.path.to_string();
        let mailbox = vitals::of(self.myself.get_id()).map(|vitals| vitals.waiting());
        let spawned = self.tasks.spawn_named("snapshot", async move {
            let children = join_all(nodes.into_iter().map(|(node, below)| complete(node, below, within * 4 / 5))).await;
            let kind = ChildKind::Supervisor;
            let uptime_ms = Some(in_ms(uptime));
            let node = TreeNode { path, kind, state, uptime_ms, restarts: 0, mailbox, last_exit: None, children };
            // Whoever asked may have stopped waiting.
            let _ = reply.send(node);
        });
        // With too many snapshots under way this one is not answered, which is shown as such; nothing else is lost.
        drop(spawned);
        Ok(())
    }
}

async fn complete(mut node: TreeNode, below: Option<ActorRef<SupervisorMsg>>, within: Duration) -> TreeNode {
    let Some(supervisor) = below else { return node };
    let (reply, answer) = oneshot::channel();
    let asked = Mailbox::of(&supervisor).send(SupervisorMsg(Msg::Snapshot { within, reply }));
    match timeout(within, answer).await {
        Ok(Ok(answered)) if asked.is_ok() => node.children = answered.children,
        Ok(_) | Err(_) => node.state = NodeState::NoAnswer,
    }
    node
}
