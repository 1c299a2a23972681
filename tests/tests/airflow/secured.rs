//! An API behind TLS, with an authority of its own, that asks for a client certificate.

use crate::linked::{await_link, await_pool, await_sync, pool, secret};
use crate::owned;
use poolwright_tests::*;
use serde_json::{Value, json};

/// It is spoken to with both, and otherwise not at all.
pub async fn secured(airflow: &Airflow, stage: &Stage) -> Result<()> {
    let server = airflow.api.trim_start_matches("http://").parse()?;
    let front = TlsFront::start(server, &airflow.authority).await?;
    secret(stage, "secured", &format!("https://{}", front.address), json!({})).await?;
    stage
        .secret("authority", "ca.crt", &airflow.authority.ca_pem()?)
        .await?;
    let pem = |path| std::fs::read_to_string(path);
    let keys = json!({
        "tls.crt": pem(&airflow.authority.certificate)?, "tls.key": pem(&airflow.authority.key)?});
    secret(stage, "client", "", keys).await?;

    let ca = json!({"caSecretRef": {"name": "authority", "key": "ca.crt"}});
    let mut both = ca.clone();
    stage::merge(&mut both, json!({"clientCertSecretRef": {"name": "client"}}));
    let of = |tls: &Value| json!({"slots": 3, "airflow": {"secretRef": {"name": "secured"}, "tls": tls}});
    for (name, tls, words) in [
        ("unknown-server", json!({}), "signed by no trusted authority"),
        ("unknown-client", ca, "asks for a client certificate"),
    ] {
        pool(stage, name, of(&tls)).await?;
        await_link(stage, name, "Unknown", "AirflowUnreachable", words).await?;
        owned::remove(stage, name).await?;
    }
    pool(stage, "secured", of(&both)).await?;
    await_sync(stage, "secured").await?;
    await_pool(airflow, "secured", json!({"slots": 3})).await?;
    // Its server ends here.
    owned::remove(stage, "secured").await
}
