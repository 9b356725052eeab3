//! One of two parties. Run it beside `cargo run --example alice`, in either order.

use std::time::Duration;

use convelo_pool::{Peer, Pool, PoolError};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), PoolError> {
    let pool = Pool::builder()
        .insecure_plain_http()
        .peer(Peer::new("Alice", "127.0.0.1", 61_001))
        .listen("127.0.0.1", 61_002)?;
    let message: String = pool.recv("Alice").await?;
    say(&format!("Alice says: {message}"));
    pool.send("Alice", "Hello Alice! This is Bob.").await?;
    pool.shutdown(Duration::from_secs(5)).await;
    Ok(())
}

#[expect(clippy::print_stdout, reason = "an example talks to a terminal")]
fn say(text: &str) {
    println!("{text}");
}
