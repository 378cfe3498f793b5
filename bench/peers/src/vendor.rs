//! reqwest: posts a form made before to an HTTPS/1.1 vendor and reads the answer's bytes, nothing more.

use anyhow::{Context as _, bail};
use bytes::Bytes;

use crate::Load;
use crate::drive::{Measured, drive};

/// About as long as our channel's.
const FORM: &str = "description=is+on+its+way&extra.hy_id=01890a5d-ac96-774b-bcce-b302099a8057&extra.jobkey=0123456789abcdef&notify_id=12345678&notify_type=-1&pass_through=0&payload=%7B%22hy_id%22%3A%2201890a5d-ac96-774b-bcce-b302099a8057%22%7D&restricted_package_name=com.example.app&time_to_live=3600000&title=Order+42&registration_id=0000000000000000000000000000000000000000000000000000000000000042";

pub(crate) async fn run(load: Load) -> anyhow::Result<Measured> {
    let pem = std::fs::read(&load.ca).context("the certificate cannot be read")?;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::pem_slice_iter(&pem) {
        roots.add(certificate?)?;
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .build()?;
    let url = format!("https://localhost:{}/v3/message/regid", load.port);
    drive(load.plan("reqwest"), move |_, _| {
        let (client, url) = (client.clone(), url.clone());
        async move {
            let answer = client
                .post(url)
                .header("authorization", "key=secret-of-the-app-in-some-length")
                .header("content-type", "application/x-www-form-urlencoded;charset=UTF-8")
                .body(Bytes::from_static(FORM.as_bytes()))
                .send()
                .await?;
            let status = answer.status();
            let body = answer.bytes().await?;
            if status != 200 || body.is_empty() {
                bail!("the sink answered {status}");
            }
            Ok(1)
        }
    })
    .await
}
