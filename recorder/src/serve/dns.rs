//! The DNS responder in a step's network. It gives every name an address of the block and never queries another
//! server.
//!
//! Since nothing is forwarded, no data can leave the build through DNS names.

use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::accept;
use super::names::NameTable;
use crate::host_name::{BadName, HostName};
use crate::step::{IncidentKind, StepRecorder};

/// The most bytes of a query. One for a single name has at most 300 bytes with EDNS options.
const MAX_QUESTION: usize = 1232;

/// The TTL in seconds. A name's address never changes within a build.
const TTL: u32 = 300;

/// The most DNS connections over TCP that are served at once.
const MAX_CONNECTIONS: usize = 64;

/// How long a TCP client may take to send a query.
const TCP_PATIENCE: Duration = Duration::from_secs(10);

/// Answers the queries of one step.
#[derive(Clone)]
pub(crate) struct Responder {
    pub names: Arc<NameTable>,
    pub recorder: Arc<StepRecorder>,
}

impl Responder {
    /// Serves UDP until the task is aborted.
    pub(crate) async fn serve_udp(self, socket: UdpSocket) {
        let mut buffer = [0u8; MAX_QUESTION + 1];
        loop {
            match socket.recv_from(&mut buffer).await {
                Ok((length, peer)) => {
                    if let Some(answer) = self.answer(&buffer[..length]) {
                        // An error means that the client is gone, which concerns no other client.
                        let _ = socket.send_to(&answer, peer).await;
                    }
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    }

    /// Serves TCP until the task is aborted.
    pub(crate) async fn serve_tcp(self, listener: TcpListener) {
        accept::each(listener, MAX_CONNECTIONS, |stream| {
            let this = self.clone();
            async move { this.converse(stream).await }
        })
        .await;
    }

    async fn converse(&self, mut stream: TcpStream) {
        while let Ok(Some(question)) = tokio::time::timeout(TCP_PATIENCE, read_question(&mut stream)).await {
            let Some(answer) = self.answer(&question) else {
                return;
            };
            let Ok(length) = u16::try_from(answer.len()) else {
                return;
            };
            let framed = [&length.to_be_bytes()[..], &answer].concat();
            if stream.write_all(&framed).await.is_err() {
                return;
            }
        }
    }

    /// The response to one message; none if it is not a query.
    pub(crate) fn answer(&self, question: &[u8]) -> Option<Vec<u8>> {
        if question.len() < 12 || question.len() > MAX_QUESTION {
            return None;
        }
        let Ok(query) = Message::from_vec(question) else {
            let id = u16::from_be_bytes([question[0], question[1]]);
            let is_answer = question[2] & 0x80 != 0;
            return (!is_answer).then(|| refusal(id, ResponseCode::FormErr))?;
        };
        if query.metadata.message_type != MessageType::Query {
            return None;
        }
        if query.metadata.op_code != OpCode::Query {
            return refusal(query.metadata.id, ResponseCode::NotImp);
        }
        let [asked] = query.queries.as_slice() else {
            return refusal(query.metadata.id, ResponseCode::FormErr);
        };
        let mut answer = Message::response(query.metadata.id, OpCode::Query);
        answer.metadata.recursion_desired = query.metadata.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.add_query(asked.clone());
        if query.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_QUESTION as u16);
            answer.set_edns(edns);
        }
        match self.look_up(asked.name(), asked.query_type(), asked.query_class()) {
            Ok(Some(record)) => {
                answer.add_answer(record);
            }
            Ok(None) => {}
            Err(code) => answer.metadata.response_code = code,
        }
        answer.to_vec().ok()
    }

    fn look_up(
        &self,
        name: &Name,
        kind: RecordType,
        class: DNSClass,
    ) -> Result<Option<Record>, ResponseCode> {
        if class != DNSClass::IN {
            return Err(ResponseCode::Refused);
        }
        let text = name.to_ascii();
        // Service discovery and reverse lookups: there is no such name, so that programs continue with the plain one.
        let lower = text.to_ascii_lowercase();
        if kind == RecordType::SRV
            || kind == RecordType::PTR
            || lower.trim_end_matches('.').ends_with(".arpa")
        {
            return Err(ResponseCode::NXDomain);
        }
        let host = match HostName::parse(&text) {
            Ok(host) => host,
            Err(BadName::Address) => {
                self.incident(IncidentKind::NameIsAddress, &text);
                return Err(ResponseCode::NXDomain);
            }
            Err(BadName::Local | BadName::Malformed) => return Err(ResponseCode::NXDomain),
        };
        if kind != RecordType::A && kind != RecordType::ANY {
            return Ok(None);
        }
        match self.names.address_of(&host) {
            Ok(address) => Ok(Some(Record::from_rdata(name.clone(), TTL, RData::A(A(address))))),
            Err(_) => {
                self.incident(IncidentKind::TooManyNames, &text);
                Err(ResponseCode::Refused)
            }
        }
    }

    fn incident(&self, kind: IncidentKind, name: &str) {
        self.recorder.incident(kind, name, "asked of DNS", 0);
    }
}

fn refusal(id: u16, code: ResponseCode) -> Option<Vec<u8>> {
    Message::error_msg(id, OpCode::Query, code).to_vec().ok()
}

/// Reads one length-prefixed query (RFC 1035, section 4.2.2); none at the end, or if it is too long.
async fn read_question(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = usize::from(stream.read_u16().await.ok()?);
    if length > MAX_QUESTION {
        return None;
    }
    let mut question = vec![0; length];
    stream.read_exact(&mut question).await.ok()?;
    Some(question)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::block::Block;
    use hickory_proto::op::Query;
    use std::net::IpAddr;
    use std::str::FromStr;

    fn responder() -> Responder {
        Responder {
            names: Arc::new(NameTable::new(Block::CAPTURE)),
            recorder: Arc::new(StepRecorder::new(&crate::StepId::new("s", 1), 10, &Arc::default())),
        }
    }

    fn ask(responder: &Responder, name: &str, kind: RecordType) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_str(name).unwrap(), kind));
        let answer = responder.answer(&message.to_vec().unwrap()).unwrap();
        let answer = Message::from_vec(&answer).unwrap();
        assert_eq!(answer.metadata.id, message.metadata.id);
        assert!(answer.metadata.recursion_desired && answer.metadata.recursion_available);
        answer
    }

    fn address(answer: &Message) -> IpAddr {
        match &answer.answers.as_slice()[0].data {
            RData::A(A(address)) => IpAddr::V4(*address),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_name_gets_its_own_address_in_every_case() {
        let r = responder();
        let a = address(&ask(&r, "a.example.", RecordType::A));
        let b = address(&ask(&r, "b.example.", RecordType::A));
        assert_ne!(a, b);
        assert_eq!(address(&ask(&r, "A.Example.", RecordType::A)), a);
        assert_eq!(r.names.name_of(a).unwrap().as_str(), "a.example");
    }

    #[test]
    fn other_types_are_empty_or_absent() {
        let r = responder();
        for kind in [RecordType::AAAA, RecordType::HTTPS, RecordType::TXT, RecordType::MX] {
            let answer = ask(&r, "a.example.", kind);
            assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
            assert!(answer.answers.is_empty());
        }
        for (name, kind) in [
            ("_http._tcp.a.example.", RecordType::SRV),
            ("1.0.18.198.in-addr.arpa.", RecordType::PTR),
            ("localhost.", RecordType::A),
        ] {
            assert_eq!(ask(&r, name, kind).metadata.response_code, ResponseCode::NXDomain, "{name}");
        }
    }

    #[test]
    fn an_address_as_a_name_is_refused_with_an_incident() {
        let r = responder();
        let answer = ask(&r, "169.254.169.254.", RecordType::A);
        assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(r.recorder.take().incidents[0].kind, IncidentKind::NameIsAddress);
    }

    #[test]
    fn garbage_is_answered_with_an_error_or_not_at_all() {
        let r = responder();
        assert!(r.answer(b"").is_none());
        assert!(r.answer(&[0; 5]).is_none());
        assert!(r.answer(&[0; MAX_QUESTION + 1]).is_none());
        let mut looped = vec![0u8, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        looped.extend([0xc0, 12, 0, 1, 0, 1]);
        let answer = Message::from_vec(&r.answer(&looped).unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        let mut two = Message::query();
        for name in ["a.example.", "b.example."] {
            two.add_query(Query::query(Name::from_str(name).unwrap(), RecordType::A));
        }
        let answer = Message::from_vec(&r.answer(&two.to_vec().unwrap()).unwrap()).unwrap();
        assert_eq!(answer.metadata.response_code, ResponseCode::FormErr);
        for seed in 0..2000u32 {
            let noise: Vec<u8> =
                (0..seed % 90).map(|i| (seed.wrapping_mul(i + 7) >> (i % 13)) as u8).collect();
            let _ = r.answer(&noise);
        }
    }

    #[tokio::test]
    async fn serves_both_transports() {
        let r = responder();
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at_udp, at_tcp) = (udp.local_addr().unwrap(), tcp.local_addr().unwrap());
        tokio::spawn(r.clone().serve_udp(udp));
        tokio::spawn(r.clone().serve_tcp(tcp));
        let mut query = Message::query();
        query.add_query(Query::query(Name::from_str("a.example.").unwrap(), RecordType::A));
        let query = query.to_vec().unwrap();

        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.send_to(&query, at_udp).await.unwrap();
        let mut buffer = [0; 512];
        let n = client.recv(&mut buffer).await.unwrap();
        let over_udp = address(&Message::from_vec(&buffer[..n]).unwrap());

        let mut client = TcpStream::connect(at_tcp).await.unwrap();
        for _ in 0..2 {
            client.write_u16(query.len() as u16).await.unwrap();
            client.write_all(&query).await.unwrap();
            let answer = read_question(&mut client).await.unwrap();
            assert_eq!(address(&Message::from_vec(&answer).unwrap()), over_udp);
        }
    }
}
