//! The cluster that `KUBECONFIG`, or the file in the home folder, or the pod's service account
//! leads to.
//!
//! Reads YAML with the reader that the settings have, since a second one is a megabyte in every
//! sidecar. What a kubeconfig means is kube's business.

mod plugin;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{config::file, kubernetes::client};

/// # Errors
/// No file leads to a cluster, and this is no pod; or what leads there cannot be used.
pub async fn client() -> Result<Client> {
    let mut config = load().await?;
    plugin::run(&mut config.auth_info).await?;
    let service = client::api_server(&config).map_err(|error| anyhow!(error))?;
    Ok(Client::new(service, config.default_namespace))
}

async fn load() -> Result<Config> {
    let listed = env::var_os("KUBECONFIG").unwrap_or_default();
    let mut paths: Vec<PathBuf> =
        env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if paths.is_empty() {
        let home = env::var_os("HOME").map(|home| Path::new(&home).join(".kube/config"));
        paths.extend(home.filter(|path| path.exists()));
    }
    if paths.is_empty() {
        return Config::incluster().context("no kubeconfig, and no service account");
    }
    let mut merged = Kubeconfig::default();
    for path in &paths {
        merged = merged.merge(read(path)?)?;
    }
    Ok(Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default()).await?)
}

/// One file; the files that it names are meant from where it lies.
fn read(path: &Path) -> Result<Kubeconfig> {
    let about = || path.display().to_string();
    let text = fs::read_to_string(path).with_context(about)?;
    let mut read: Kubeconfig =
        file::document(&text).map_err(|error| anyhow!(error)).with_context(about)?;
    let folder = path.parent().unwrap_or(Path::new(""));
    let clusters = read.clusters.iter_mut().filter_map(|named| named.cluster.as_mut());
    let users = read.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut());
    let files =
        clusters.map(|cluster| &mut cluster.certificate_authority).chain(users.flat_map(|user| {
            [&mut user.client_certificate, &mut user.client_key, &mut user.token_file]
        }));
    for file in files.flatten() {
        // An absolute path stays what it is.
        *file = folder.join(&*file).display().to_string();
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_meant_from_where_the_kubeconfig_lies() {
        let folder = env::temp_dir().join(format!("ebbtide-kubeconfig-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("config");
        let text = "apiVersion: v1\nkind: Config\nclusters:\n- name: a\n  cluster: {server: 'https://a', \
                    certificate-authority: ca.crt}\nusers:\n- name: a\n  user: {client-key: /k}\n";
        fs::write(&path, text).unwrap();
        let config = read(&path).unwrap();
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        let expected = folder.join("ca.crt").display().to_string();
        assert_eq!(cluster.certificate_authority, Some(expected));
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        assert_eq!(user.client_key.as_deref(), Some("/k"));
        fs::write(&path, "clusters: 7").unwrap();
        let error = format!("{:#}", read(&path).unwrap_err());
        assert!(error.contains("config") && error.contains("clusters"), "{error}");
        fs::remove_dir_all(folder).unwrap();
    }
}
