//! The end that somebody outside wants: Ctrl-C, or termination.

use tokio::signal::unix::{SignalKind, signal};

/// Returns when somebody wants this process to end.
pub(crate) async fn ended() -> std::io::Result<()> {
    let mut terminated = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed,
        _ = terminated.recv() => Ok(()),
    }
}
