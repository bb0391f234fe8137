//! Credential plugins: the programs that a kubeconfig names under `exec`, as the clouds' do
//! (client.authentication.k8s.io/v1).
//!
//! Runs one once: a command ends before what it was given does.

use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use kube::config::{AuthInfo, ExecConfig};
use serde::Deserialize;
use tokio::process::Command;

use crate::config::file;

const VERSION: &str = "client.authentication.k8s.io/v1";

#[derive(Deserialize)]
struct Credential {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Puts what the plugin gives in its place, if there is one.
///
/// # Errors
/// It cannot be run, fails, or prints something else.
pub async fn run(auth: &mut AuthInfo) -> Result<()> {
    let Some(exec) = auth.exec.take() else {
        return Ok(());
    };
    let program = exec.command.clone().ok_or_else(|| anyhow!("`exec` names no `command`"))?;
    let about = || format!("the credential plugin `{program}`");
    let (status, printed) = output(&exec, &program).await.with_context(|| {
        let hint = exec.install_hint.as_deref().map(|hint| format!(" ({hint})"));
        format!("{}{}", about(), hint.unwrap_or_default())
    })?;
    if !status.success() {
        bail!("{} failed: {status}", about());
    }
    // Most print JSON, some YAML, which it is, too.
    let text = String::from_utf8_lossy(&printed);
    let credential: Credential =
        file::document(&text).map_err(|error| anyhow!(error)).with_context(about)?;
    let given = credential.status.ok_or_else(|| anyhow!("{} gave no `status`", about()))?;
    auth.token = given.token.map(Into::into);
    if let (Some(certificate), Some(key)) = (given.client_certificate_data, given.client_key_data) {
        // They are PEM here, and base64 of it in a kubeconfig.
        auth.client_certificate_data = Some(encoded(&certificate));
        auth.client_key_data = Some(encoded(&key).into());
    }
    Ok(())
}

fn encoded(text: &str) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    STANDARD.encode(text)
}

async fn output(exec: &ExecConfig, program: &str) -> Result<(ExitStatus, Vec<u8>)> {
    let version = exec.api_version.as_deref().unwrap_or(VERSION);
    let about = serde_json::json!({
        "apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": false},
    });
    let mut command = Command::new(program);
    command.args(exec.args.iter().flatten()).env("KUBERNETES_EXEC_INFO", about.to_string());
    for pair in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (pair.get("name"), pair.get("value")) {
            command.env(name, value);
        }
    }
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().await?;
    Ok((output.status, output.stdout))
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    async fn ran(script: &str) -> Result<AuthInfo> {
        let config = format!(
            "users:\n- name: a\n  user:\n    exec:\n      apiVersion: {VERSION}beta1\n      \
             command: sh\n      args: [-c, '{script}']\n      env: [{{name: GIVEN, value: x}}]\n"
        );
        let config: Kubeconfig = file::document(&config).unwrap();
        let mut auth = config.auth_infos[0].auth_info.clone().unwrap();
        run(&mut auth).await.map(|()| auth)
    }

    #[tokio::test]
    async fn what_a_plugin_prints_counts() {
        let auth = ran("echo \"status: {token: $GIVEN}\"").await.unwrap();
        assert_eq!(secrecy::ExposeSecret::expose_secret(&auth.token.unwrap()), "x");
        let told = "echo $KUBERNETES_EXEC_INFO | grep -q v1beta1 && echo \"status: {}\"";
        assert!(ran(told).await.unwrap().token.is_none());
        let pair = "echo \"status: {clientCertificateData: C, clientKeyData: K}\"";
        assert_eq!(ran(pair).await.unwrap().client_certificate_data.as_deref(), Some("Qw=="));
        for (script, part) in [
            ("exit 3", "failed: exit status: 3"),
            ("echo kind: ExecCredential", "no `status`"),
            ("echo [", "plugin `sh`"),
        ] {
            let error = format!("{:#}", ran(script).await.unwrap_err());
            assert!(error.contains(part), "{error}");
        }
    }
}
