//! From a TaskQueue's broker to a connection's configuration: reads the Secrets that it names.
//!
//! Reads by name only (`get`; never list or watch), and only in the TaskQueue's own namespace. No byte of a
//! Secret leaves this module but inside a [`BrokerConfig`], whose `Debug` shows none.

use std::collections::BTreeMap;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret as KubeSecret;
use kube::{Api, Client};
use poolwright_api::v1alpha1::{AirflowPool, Broker, SecretKeyRef, TlsOptions};
use poolwright_core::broker::{BrokerConfig, BrokerOptions, Secret, Tls};
use poolwright_core::sample::FaultKind;

use crate::signals::SignalError;
use crate::signals::airflow::{Access, Credentials};
use crate::signals::poller::Resolve;

/// Whom the printed command names when the API server does not say whom it refused.
const ACCOUNT: &str = "system:serviceaccount:poolwright:poolwright";

/// Resolves one broker of one namespace.
pub struct Resolver {
    /// For reading Secrets.
    pub client: Client,
    /// Where they are.
    pub namespace: String,
    /// The broker as its TaskQueues write it.
    pub broker: Broker,
}

impl Resolve for Resolver {
    fn resolve(&self) -> BoxFuture<'_, Result<BrokerConfig, SignalError>> {
        self.config().boxed()
    }
}

/// The configuration of TLS that is written, with what its Secrets hold.
pub(super) async fn tls(
    client: &Client,
    namespace: &str,
    written: Option<&TlsOptions>,
) -> Result<Option<Tls>, SignalError> {
    let Some(tls) = written else {
        return Ok(None);
    };
    let mut found = Tls {
        insecure_skip_verify: tls.insecure_skip_verify,
        ..Tls::default()
    };
    if let Some(reference) = &tls.ca_secret_ref {
        found.ca_pem = Some(text(client, namespace, reference).await?);
    }
    if let Some(reference) = &tls.client_cert_secret_ref {
        let key = |key: &str| SecretKeyRef {
            name: reference.name.clone(),
            key: key.to_owned(),
        };
        found.client_cert_pem = Some(text(client, namespace, &key("tls.crt")).await?);
        found.client_key_pem = Some(Secret::new(text(client, namespace, &key("tls.key")).await?));
    }
    Ok(Some(found))
}

/// The text under one key of a Secret, without the end of its line.
pub(super) async fn text(
    client: &Client,
    namespace: &str,
    reference: &SecretKeyRef,
) -> Result<String, SignalError> {
    let (name, key) = (&reference.name, &reference.key);
    let mut data = secret(client, namespace, name).await?;
    let Some(bytes) = data.remove(key) else {
        let message = format!("Secret {name:?} has no key {key:?}");
        return Err(SignalError::new(FaultKind::SecretMissing, message));
    };
    plain(name, key, bytes.0)
}

/// Where an Airflow is and how to log in: what the Secret that a Pool names says.
pub(super) async fn airflow(
    client: &Client,
    namespace: &str,
    written: &AirflowPool,
) -> Result<Access, SignalError> {
    let name = &written.secret_ref.name;
    let mut data = secret(client, namespace, name).await?;
    let mut of = |key: &str| {
        data.remove(key)
            .map(|bytes| plain(name, key, bytes.0))
            .transpose()
    };
    let missing = |what: &str| {
        let message = format!("Secret {name:?} has {what}");
        SignalError::new(FaultKind::SecretMissing, message)
    };
    let url = of("url")?.ok_or_else(|| missing("no key \"url\", which says where Airflow is"))?;
    let credentials = match (of("token")?, of("username")?, of("password")?) {
        (Some(token), _, _) => Credentials::Token(Secret::new(token)),
        (None, Some(username), Some(password)) => Credentials::Password(username, Secret::new(password)),
        _ => {
            return Err(missing(
                "neither the keys \"username\" and \"password\" nor \"token\"",
            ));
        }
    };
    let database = of("databaseUrl")?.map(Secret::new);
    let tls = tls(client, namespace, written.tls.as_ref()).await?;
    Ok(Access {
        url,
        credentials,
        tls: tls.unwrap_or_default(),
        database,
        executor: written.executor.clone(),
    })
}

async fn secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<BTreeMap<String, ByteString>, SignalError> {
    let secrets: Api<KubeSecret> = Api::namespaced(client.clone(), namespace);
    let secret = secrets.get_opt(name).await.map_err(|error| match error {
        kube::Error::Api(status) if status.code == 403 => SignalError::new(
            FaultKind::SecretForbidden,
            forbidden(name, namespace, &status.message),
        ),
        _ => SignalError::new(
            FaultKind::Unreachable,
            format!("Secret {name:?} could not be read from the API server"),
        ),
    })?;
    let missing = || {
        let message = format!("Secret {name:?} does not exist in namespace {namespace:?}");
        SignalError::new(FaultKind::SecretMissing, message)
    };
    Ok(secret.ok_or_else(missing)?.data.unwrap_or_default())
}

fn plain(name: &str, key: &str, bytes: Vec<u8>) -> Result<String, SignalError> {
    let text = String::from_utf8(bytes)
        .map_err(|_| invalid(format!("key {key:?} of Secret {name:?} is not text")))?;
    Ok(text.trim_end_matches(['\n', '\r']).to_owned())
}

impl Resolver {
    async fn config(&self) -> Result<BrokerConfig, SignalError> {
        let url = match (&self.broker.url, &self.broker.url_secret_ref) {
            (Some(url), _) => url.clone(),
            (None, Some(reference)) => self.text(reference).await?,
            (None, None) => return Err(invalid("spec.broker has neither url nor urlSecretRef")),
        };
        let mut options = BrokerOptions {
            tls: tls(&self.client, &self.namespace, self.broker.tls.as_ref()).await?,
            ..BrokerOptions::from(&self.broker)
        };
        let secret = self.broker.rabbitmq_options().management_url_secret_ref;
        if let (None, Some(reference)) = (&options.management_url, &secret) {
            options.management_url = Some(Secret::new(self.text(reference).await?));
        }
        BrokerConfig::parse(&url, &options).map_err(|error| invalid(error.to_string()))
    }

    async fn text(&self, reference: &SecretKeyRef) -> Result<String, SignalError> {
        text(&self.client, &self.namespace, reference).await
    }
}

/// The command comes first and whole: it is what a person copies, and a long message loses its end. Its subject is
/// whom the API server says that it refused, which is right wherever and as whomever the operator runs.
fn forbidden(secret: &str, namespace: &str, refusal: &str) -> String {
    let user = refusal
        .split("User \"")
        .nth(1)
        .and_then(|rest| rest.split('"').next())
        .unwrap_or(ACCOUNT);
    let subject = match user.strip_prefix("system:serviceaccount:") {
        Some(account) => format!("--serviceaccount={account}"),
        None => format!("--user={user}"),
    };
    format!(
        "no permission to read a Secret; grant it with: kubectl create rolebinding poolwright-secrets -n {namespace} \
         --clusterrole=poolwright-secrets {subject} # Secret {secret:?}"
    )
}

fn invalid(message: impl Into<String>) -> SignalError {
    SignalError::new(FaultKind::InvalidAddress, message)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::{StatusCode, Uri};
    use kube::Config;
    use poolwright_core::broker::HttpEndpoint;
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    /// Name and keys of a Secret.
    type Kept<'a> = (&'a str, &'a [(&'a str, &'a str)]);

    const RABBIT: Kept<'_> = (
        "rabbit",
        &[
            ("url", "amqps://shop:sesame@rabbit.test/orders\n"),
            ("management", "https://reader:thyme@rabbit.test:15671/\n"),
        ],
    );
    const AUTHORITY: Kept<'_> = ("authority", &[("ca.crt", "the authority\n")]);
    const CLIENT: Kept<'_> = ("client", &[("tls.crt", "the chain\n"), ("tls.key", "the key\n")]);

    /// An API server that has these Secrets in the namespace `shop` and nothing else.
    async fn server(secrets: &[Kept<'_>]) -> Client {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut objects = BTreeMap::new();
        for (name, keys) in secrets {
            let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
            let keys = keys.iter().map(|(key, text)| ((*key).to_owned(), bytes(text)));
            let secret = KubeSecret {
                data: Some(keys.collect()),
                ..KubeSecret::default()
            };
            let path = format!("/api/v1/namespaces/shop/secrets/{name}");
            objects.insert(path, serde_json::to_string(&secret).unwrap());
        }
        let answer = move |uri: Uri| {
            let found = objects.get(uri.path()).cloned();
            let none = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404});
            std::future::ready(found.ok_or_else(|| (StatusCode::NOT_FOUND, none.to_string())))
        };
        let router: Router = Router::new().fallback(answer);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Client::try_from(Config::new(address.parse().unwrap())).unwrap()
    }

    /// What becomes of a broker of which everything is in Secrets, where there are these.
    async fn resolved(secrets: &[Kept<'_>]) -> Result<BrokerConfig, SignalError> {
        let broker = json!({
            "urlSecretRef": {"name": "rabbit", "key": "url"},
            "tls": {
                "caSecretRef": {"name": "authority", "key": "ca.crt"},
                "clientCertSecretRef": {"name": "client"},
                "insecureSkipVerify": true,
            },
            "rabbitmq": {"managementUrlSecretRef": {"name": "rabbit", "key": "management"}},
        });
        let resolver = Resolver {
            client: server(secrets).await,
            namespace: "shop".to_owned(),
            broker: serde_json::from_value(broker).unwrap(),
        };
        resolver.resolve().await
    }

    #[tokio::test]
    async fn each_secret_goes_where_it_belongs() {
        let config = resolved(&[RABBIT, AUTHORITY, CLIENT]).await.unwrap();
        assert_eq!(config.address(), "amqps://rabbit.test:5671/orders");
        assert_eq!(config.username.as_deref(), Some("shop"));
        assert_eq!(config.password, Some(Secret::new("sesame")));
        let tls = Tls {
            ca_pem: Some("the authority".to_owned()),
            client_cert_pem: Some("the chain".to_owned()),
            client_key_pem: Some(Secret::new("the key")),
            insecure_skip_verify: true,
        };
        assert_eq!(config.tls, Some(tls));
        let management = HttpEndpoint {
            url: "https://rabbit.test:15671".to_owned(),
            username: Some("reader".to_owned()),
            password: Some(Secret::new("thyme")),
        };
        assert_eq!(config.management_url, Some(management));
    }

    #[tokio::test]
    async fn what_is_missing_is_named() {
        let half: Kept<'_> = ("client", &[("tls.crt", "the chain")]);
        let other: Kept<'_> = ("rabbit", &[RABBIT.1[0]]);
        for (secrets, words) in [
            (
                [RABBIT, AUTHORITY, half],
                "Secret \"client\" has no key \"tls.key\"",
            ),
            (
                [other, AUTHORITY, CLIENT],
                "Secret \"rabbit\" has no key \"management\"",
            ),
            (
                [RABBIT, CLIENT, ("another", AUTHORITY.1)],
                "Secret \"authority\" does not exist in namespace \"shop\"",
            ),
        ] {
            let error = resolved(&secrets).await.unwrap_err();
            assert_eq!(error.kind, FaultKind::SecretMissing, "{error}");
            assert_eq!(error.message, words);
        }
    }

    #[test]
    fn the_printed_command_binds_whom_the_server_refused() {
        let refusal = |user: &str| {
            format!(
                "secrets \"broker\" is forbidden: User \"{user}\" cannot get resource \"secrets\" in API group \"\""
            )
        };
        for (user, subject) in [
            (
                "system:serviceaccount:ops:scaler",
                "--serviceaccount=ops:scaler #",
            ),
            ("jane", "--user=jane #"),
        ] {
            let text = forbidden("broker", "shop", &refusal(user));
            assert!(text.contains(
                "kubectl create rolebinding poolwright-secrets -n shop --clusterrole=poolwright-secrets --"
            ));
            assert!(text.contains(subject), "{text}");
        }
        assert!(forbidden("broker", "shop", "").contains("--serviceaccount=poolwright:poolwright "));
    }
}
