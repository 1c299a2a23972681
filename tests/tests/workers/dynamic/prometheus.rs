//! A server that answers an instant query as Prometheus does.

use poolwright_tests::Result;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

#[derive(Default)]
struct Said {
    /// The sample's value; without one it answers that it is not ready.
    value: Option<String>,
    /// The first line of the last request.
    asked: String,
}

pub struct Prometheus {
    pub url: String,
    said: Arc<Mutex<Said>>,
    serving: JoinHandle<()>,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Prometheus {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let said = Arc::<Mutex<Said>>::default();
        let known = Arc::clone(&said);
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::clone(&known)));
            }
        });
        Ok(Self { url, said, serving })
    }

    /// From now on it answers with this value.
    pub fn say(&self, value: &str) {
        self.said.lock().unwrap().value = Some(value.to_owned());
    }

    /// From now on it gives no answer.
    pub fn hush(&self) {
        self.said.lock().unwrap().value = None;
    }

    pub fn asked(&self) -> String {
        self.said.lock().unwrap().asked.clone()
    }
}

async fn answer(mut stream: TcpStream, said: Arc<Mutex<Said>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut part = [0; 1024];
        match stream.read(&mut part).await {
            Ok(1..) if request.len() < 8192 => request.extend(part.into_iter().take_while(|byte| *byte != 0)),
            _ => return,
        }
    }
    let line = String::from_utf8_lossy(&request);
    let line = line.lines().next().unwrap_or_default().to_owned();
    let value = {
        let mut said = said.lock().unwrap();
        said.asked = line;
        said.value.clone()
    };
    let (status, body) = match value {
        Some(value) => {
            let result = format!(r#"[{{"metric":{{"job":"db"}},"value":[1700000000.123,"{value}"]}}]"#);
            let data = format!(r#"{{"resultType":"vector","result":{result}}}"#);
            ("200 OK", format!(r#"{{"status":"success","data":{data}}}"#))
        }
        None => ("503 Service Unavailable", String::new()),
    };
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n");
    let whole = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    let _ = stream.write_all(whole.as_bytes()).await;
}
