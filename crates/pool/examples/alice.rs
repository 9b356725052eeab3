//! One of two parties. Run it beside `cargo run --example bob`, in either order.

use std::time::Duration;

use convelo_pool::{Peer, Pool, PoolError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), PoolError> {
    let pool = Pool::builder()
        .insecure_plain_http()
        .peer(Peer::new("Bob", "127.0.0.1", 61_002))
        .listen("127.0.0.1", 61_001)?;
    pool.send("Bob", "Hello Bob! This is Alice speaking.").await?;
    let answer: String = pool.recv("Bob").await?;
    say(&format!("Bob says: {answer}"));
    pool.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example talks to a terminal")]
fn say(text: &str) {
    println!("{text}");
}
