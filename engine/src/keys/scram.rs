//! SCRAM-SHA-256 (RFC 5802, RFC 7677): who holds a key proves it without sending it, to a server that has only what it can be
//! verified by (pure).

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// The mechanism's name.
pub(crate) const MECHANISM: &str = "SCRAM-SHA-256";

/// How often a client hashes its password. More protects passwords that can be guessed, which keys are not; clients refuse less.
const ITERATIONS: u32 = 4_096;

type Hash = [u8; 32];

/// What a password is verified by. It is no password: who has read it cannot use it to come in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verifier {
    salt: String,
    iterations: u32,
    stored_key: String,
    server_key: String,
}

impl Verifier {
    /// That of a password, which must be ASCII: other texts have more than one form.
    pub(crate) fn of(password: &str, salt: &[u8]) -> Self {
        Verifier::after(password, salt, ITERATIONS)
    }

    /// One that no password fulfils: a client that is nobody learns so at the same place as one with a wrong password.
    pub(crate) fn of_nothing(salt: &[u8]) -> Self {
        let nothing = STANDARD.encode([0; 32]);
        Verifier {
            salt: STANDARD.encode(salt),
            iterations: ITERATIONS,
            stored_key: nothing.clone(),
            server_key: nothing,
        }
    }

    fn after(password: &str, salt: &[u8], iterations: u32) -> Self {
        let salted = salted(password.as_bytes(), salt, iterations);
        let client_key = hmac(&salted, b"Client Key");
        Verifier {
            salt: STANDARD.encode(salt),
            iterations,
            stored_key: STANDARD.encode(Sha256::digest(client_key)),
            server_key: STANDARD.encode(hmac(&salted, b"Server Key")),
        }
    }
}

/// A proof that has begun: the client has said who it is, and knows what its proof must be about.
#[derive(Debug)]
pub(crate) struct Exchange {
    verifier: Verifier,
    /// The header that the client's last message must repeat.
    header: String,
    nonce: String,
    /// The first messages of both, without the header.
    said: String,
}

impl Exchange {
    /// Takes the client's first message; returns what to answer. `nonce` is the server's part, random and printable.
    ///
    /// # Errors
    /// The message is not as the mechanism has it, or wants the proof bound to a channel.
    pub(crate) fn begin(
        verifier: Verifier,
        first: &[u8],
        nonce: &str,
    ) -> Result<(String, Self), &'static str> {
        const WRONG: &str = "the first message of SCRAM cannot be read";
        let first = str::from_utf8(first).map_err(|_| WRONG)?;
        // The header says whether the channel is bound, and as whom one comes in; the name of the startup message counts.
        let mut commas = first.match_indices(',').map(|(at, _)| at);
        let (Some(_), Some(second)) = (commas.next(), commas.next()) else {
            return Err(WRONG);
        };
        let (header, bare) = first.split_at(second + 1);
        if !header.starts_with("n,") && !header.starts_with("y,") {
            return Err("SCRAM is not bound to a channel here; set channel_binding to prefer");
        }
        let mut attributes = bare.split(',');
        let (Some(name), Some(theirs)) = (attributes.next(), attributes.next()) else {
            return Err(WRONG);
        };
        let theirs = theirs.strip_prefix("r=").filter(|nonce| !nonce.is_empty());
        let theirs = theirs.filter(|_| name.starts_with("n=")).ok_or(WRONG)?;
        let nonce = format!("{theirs}{nonce}");
        let answer = format!("r={nonce},s={},i={}", verifier.salt, verifier.iterations);
        let exchange = Exchange {
            verifier,
            header: header.to_owned(),
            nonce,
            said: format!("{bare},{answer}"),
        };
        Ok((answer, exchange))
    }

    /// Takes the client's last message; returns the server's own proof, or `None` when the client has not the password.
    ///
    /// # Errors
    /// The message is not as the mechanism has it, or is about another exchange.
    pub(crate) fn finish(&self, last: &[u8]) -> Result<Option<String>, &'static str> {
        const WRONG: &str = "the last message of SCRAM cannot be read";
        let last = str::from_utf8(last).map_err(|_| WRONG)?;
        let (without_proof, proof) = last.rsplit_once(",p=").ok_or(WRONG)?;
        let expected = format!("c={},r={}", STANDARD.encode(&self.header), self.nonce);
        if without_proof != expected {
            return Err("the last message of SCRAM is about another exchange");
        }
        let proof = hash_of(proof).ok_or(WRONG)?;
        let (Some(stored_key), Some(server_key)) = (
            hash_of(&self.verifier.stored_key),
            hash_of(&self.verifier.server_key),
        ) else {
            return Ok(None);
        };
        let about = format!("{},{without_proof}", self.said);
        let signature = hmac(&stored_key, about.as_bytes());
        let client_key = Sha256::digest(xor(proof, signature));
        if !bool::from(client_key.as_slice().ct_eq(&stored_key)) {
            return Ok(None);
        }
        let own = STANDARD.encode(hmac(&server_key, about.as_bytes()));
        Ok(Some(format!("v={own}")))
    }
}

fn hash_of(text: &str) -> Option<Hash> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

fn xor(left: Hash, right: Hash) -> Hash {
    let mut both = left;
    both.iter_mut()
        .zip(right)
        .for_each(|(byte, other)| *byte ^= other);
    both
}

/// PBKDF2 with HMAC-SHA-256, of one block.
fn salted(password: &[u8], salt: &[u8], iterations: u32) -> Hash {
    let mut last = hmac(password, &[salt, &1_u32.to_be_bytes()].concat());
    let mut all = last;
    for _ in 1..iterations {
        last = hmac(password, &last);
        all = xor(all, last);
    }
    all
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Hash {
    const BLOCK: usize = 64;
    let mut block = [0; BLOCK];
    match key.len() {
        0..=BLOCK => block[..key.len()].copy_from_slice(key),
        _ => block[..32].copy_from_slice(&Sha256::digest(key)),
    }
    let inner = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x36))
        .chain_update(message)
        .finalize();
    let outer = Sha256::new()
        .chain_update(block.map(|byte| byte ^ 0x5C))
        .chain_update(inner);
    outer.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const LAST: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                        p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    /// That of RFC 7677.
    fn verifier() -> Verifier {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        Verifier::of("pencil", &salt)
    }

    #[test]
    fn an_exchange_is_that_of_the_standard() {
        let (answer, exchange) = Exchange::begin(verifier(), FIRST, NONCE).unwrap();
        let expected = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        assert_eq!(answer, expected);
        let own = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(
            exchange.finish(LAST.as_bytes()).unwrap().as_deref(),
            Some(own)
        );
    }

    #[test]
    fn a_code_is_that_of_the_standard() {
        // RFC 4231, test cases 2 and 6.
        let code = hmac(b"Jefe", b"what do ya want for nothing?");
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(crate::keys::hex(&code), expected);
        let code = hmac(
            &[0xAA; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
        );
        let expected = "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54";
        assert_eq!(crate::keys::hex(&code), expected);
    }

    #[test]
    fn another_password_or_another_exchange_is_not_let_in() {
        let salt = [7; 16];
        let (_, exchange) = Exchange::begin(Verifier::of("pencils", &salt), FIRST, NONCE).unwrap();
        assert_eq!(exchange.finish(LAST.as_bytes()), Ok(None));
        let (_, exchange) = Exchange::begin(verifier(), FIRST, "another nonce").unwrap();
        assert!(exchange.finish(LAST.as_bytes()).is_err());
        let (_, exchange) = Exchange::begin(verifier(), FIRST, NONCE).unwrap();
        let (without_proof, _) = LAST.split_once(",p=").unwrap();
        for proof in [
            "",
            "AAAA",
            "!",
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ",
        ] {
            let last = format!("{without_proof},p={proof}");
            assert!(exchange.finish(last.as_bytes()).is_err(), "{proof}");
        }
        let zeros = STANDARD.encode([0; 32]);
        let last = format!("{without_proof},p={zeros}");
        assert_eq!(exchange.finish(last.as_bytes()), Ok(None));
        for first in [
            "",
            "n,,",
            "n,,n=user",
            "n,,r=x,n=user",
            "p=tls-server-end-point,,n=,r=x",
            "n,,n=,r=",
        ] {
            assert!(
                Exchange::begin(verifier(), first.as_bytes(), NONCE).is_err(),
                "{first}"
            );
        }
    }
}
