//! A sandbox with the demo's phones on free ports, for looking at the page.

use hongyan_sandbox::{NewPhone, Options, Sandbox, SandboxError};

#[tokio::main]
async fn main() -> Result<(), SandboxError> {
    let directory = std::env::temp_dir().join("hongyan-sandbox-example");
    let options = Options {
        phones: NewPhone::demo(),
        ..Options::ephemeral(directory)
    };
    let sandbox = Sandbox::start(options).await?;
    let handle = sandbox.handle();
    tracing::info!(
        page = handle.control_url(),
        vendors = handle.vendors_url(),
        "sandbox"
    );
    let note = format!("{}\n{}\n", handle.control_url(), handle.vendors_url());
    let path = std::env::temp_dir()
        .join("hongyan-sandbox-example")
        .join("urls.txt");
    std::fs::write(&path, note).map_err(|source| SandboxError::File {
        action: "write",
        path,
        source,
    })?;
    let mut stop = handle.watch_phones();
    // Runs until the terminal ends it.
    while stop.changed().await.is_ok() {}
    sandbox.stop().await;
    Ok(())
}
