use super::*;

const ASK: &[u8] = b"GET / HTTP/1.1\r\nhost: hello\r\n\r\n";

fn start() -> Arc<Server> {
    Server::start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap()
}

fn ask(stream: &TcpStream, request: &[u8]) -> String {
    let mut writer = stream;
    writer.write_all(request).unwrap();
    read_answer(stream)
}

fn read_answer(stream: &TcpStream) -> String {
    let mut reader = stream;
    let mut buffer = [0; 1024];
    let length = reader.read(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[test]
fn one_connection_serves_many_requests() {
    let server = start();
    let stream = TcpStream::connect(server.address).unwrap();
    for _ in 0..3 {
        let answer = ask(&stream, ASK);
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        assert!(answer.contains("connection: keep-alive"), "{answer}");
        assert!(answer.contains(GREETING), "{answer}");
    }
    let health = ask(&stream, b"GET /healthz?deep=1 HTTP/1.1\r\n\r\n");
    assert!(health.ends_with("\r\n\r\nok\n"), "{health}");
}

#[test]
fn odd_requests_get_an_answer_and_the_connection_ends() {
    let server = start();
    let long = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(20_000));
    for (request, status) in [
        (
            &b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi"[..],
            "405",
        ),
        (b"GET /nothing HTTP/1.0\r\n\r\n", "404"),
        (b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n", "200"),
        (long.as_bytes(), "431"),
    ] {
        let stream = TcpStream::connect(server.address).unwrap();
        let answer = ask(&stream, request);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
    }
}

#[test]
fn a_stop_answers_what_has_arrived_and_closes_the_rest() {
    let server = start();
    let idle = TcpStream::connect(server.address).unwrap();
    let busy = TcpStream::connect(server.address).unwrap();
    ask(&idle, ASK);
    ask(&busy, ASK);
    (&busy).write_all(ASK).unwrap();
    let answer = thread::scope(|scope| {
        let reading = scope.spawn(|| read_answer(&busy));
        assert_eq!(server.drain(DRAIN_TIMEOUT), 0);
        reading.join().unwrap()
    });
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    assert_eq!(read_answer(&idle), "");
    // The listener is gone once the woken accept() has returned.
    let refused = (0..200).any(|_| {
        thread::sleep(Duration::from_millis(10));
        TcpStream::connect(server.address).is_err()
    });
    assert!(refused, "still accepting after a stop");
}
