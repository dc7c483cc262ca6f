//! A container image in the OCI layout, as one tar file that `podman load` and `skopeo` read: one layer with the
//! program. <https://github.com/opencontainers/image-spec/blob/v1.1.0/image-layout.md>

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::{Job, staged, tarball};

/// Makes the image.
pub(super) fn make(job: &Job) -> Result<PathBuf> {
    let work = tempfile::tempdir_in(&job.folder).context("cannot make a temporary folder")?;
    let [root, layout] = ["root", "layout"].map(|name| work.path().join(name));
    for folder in ["tmp", "etc", "var/lib/netwatch", "usr/bin"] {
        fs::create_dir_all(root.join(folder)).context("cannot make a folder")?;
    }
    fs::copy(job.staged.program(), root.join("usr/bin/netwatch")).context("cannot copy the program")?;
    fs::create_dir_all(layout.join("blobs/sha256")).context("cannot make a folder")?;

    let layer = work.path().join("layer.tar");
    tarball::tar(job, &root, ".", &layer)?;
    let layer =
        add(&layout, fs::read(&layer).context("no layer")?, "application/vnd.oci.image.layer.v1.tar")?;
    let config = json!({
        "architecture": job.arch.debian(),
        "os": "linux",
        "config": {
            "Entrypoint": ["/usr/bin/netwatch"],
            "Cmd": ["record"],
            "Volumes": {"/var/lib/netwatch": {}},
            "Labels": {"org.opencontainers.image.version": job.version, "org.opencontainers.image.title": "netwatch"},
        },
        "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
    });
    let config = add(&layout, config.to_string().into(), "application/vnd.oci.image.config.v1+json")?;
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor(), "layers": [layer.descriptor()]});
    let manifest = add(&layout, manifest.to_string().into(), manifest_type)?;
    let name = format!("localhost/netwatch:{}", job.version);
    let mut described = manifest.descriptor();
    if let Some(fields) = described.as_object_mut() {
        fields.insert("annotations".into(), json!({"org.opencontainers.image.ref.name": name}));
    }
    let index_type = "application/vnd.oci.image.index.v1+json";
    let index = json!({"schemaVersion": 2, "mediaType": index_type, "manifests": [described]});
    for (file, content) in [("index.json", index), ("oci-layout", json!({"imageLayoutVersion": "1.0.0"}))] {
        fs::write(layout.join(file), content.to_string()).context("cannot write the image")?;
    }
    let path = job.folder.join(format!("netwatch-{}-{}.oci.tar", job.version, job.arch.name()));
    tarball::tar(job, &layout, ".", &path)?;
    Ok(path)
}

struct Blob {
    media_type: &'static str,
    digest: String,
    size: usize,
}

impl Blob {
    fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

fn add(layout: &Path, content: Vec<u8>, media_type: &'static str) -> Result<Blob> {
    let size = content.len();
    let draft = layout.join("draft");
    fs::write(&draft, content).context("cannot write a blob")?;
    let sum = staged::output(Command::new("sha256sum").arg("--").arg(&draft))?;
    let hash = String::from_utf8_lossy(&sum).split_whitespace().next().unwrap_or_default().to_owned();
    fs::rename(draft, layout.join("blobs/sha256").join(&hash)).context("cannot write a blob")?;
    Ok(Blob { media_type, digest: format!("sha256:{hash}"), size })
}
