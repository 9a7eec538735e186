//! The text of a new `countersign.toml`, with every setting explained.

use std::collections::BTreeSet;

const HEAD: &str = "\
# How the images of this repository are built. Every setting: docs/countersign-toml.md of countersign.
version = 1
";

const TAIL: &str = "
# Digests for base images, by their names in the Dockerfiles.
# [bases]
# \"python:3.12-slim\" = \"docker.io/library/python@sha256:…\"
";

/// With an image for each of these Dockerfiles, or for the one in the root.
pub(crate) fn of(dockerfiles: &[String]) -> String {
    let one = ["Dockerfile".to_owned()];
    let mut names = BTreeSet::new();
    let mut text = HEAD.to_owned();
    for dockerfile in if dockerfiles.is_empty() { &one } else { dockerfiles } {
        let (folder, file) = dockerfile.rsplit_once('/').unwrap_or(("", dockerfile));
        // One that has only the usual name sees its own folder, as in `docker build FOLDER`.
        let context = if file == "Dockerfile" && !folder.is_empty() { folder } else { "." };
        let name = name(folder, file, &mut names);
        text.push_str(&section(&name, context, dockerfile));
    }
    text + TAIL
}

/// A name for an image: that of the file where it has one of its own, else that of its folder.
fn name(folder: &str, file: &str, taken: &mut BTreeSet<String>) -> String {
    let own =
        file.split('.').find(|part| !["dockerfile", "containerfile"].contains(&&*part.to_ascii_lowercase()));
    let folder = folder.rsplit('/').next().filter(|name| !name.is_empty());
    let wanted: String = own.or(folder).unwrap_or(super::DEFAULT_IMAGE).chars().map(plain).collect();
    let numbered = (2..).map(|number| format!("{wanted}-{number}"));
    let mut free = std::iter::once(wanted.clone()).chain(numbered).filter(|name| !taken.contains(name));
    let name = free.next().unwrap_or(wanted);
    taken.insert(name.clone());
    name
}

/// Letters that a key of TOML may have without quotes.
fn plain(letter: char) -> char {
    if letter.is_ascii_alphanumeric() || letter == '_' { letter } else { '-' }
}

fn section(name: &str, context: &str, dockerfile: &str) -> String {
    let text = |value: &str| toml::Value::String(value.to_owned()).to_string();
    let (context, dockerfile) = (text(context), text(dockerfile));
    format!(
        "
[image.{name}]
# The folder of the repository that COPY and ADD see.
context = {context}
dockerfile = {dockerfile}
# The stage to build, instead of the last one.
# target = \"runtime\"
# Values for ARG.
# args = {{ PYTHON = \"3.12\" }}
# One platform or several, instead of the machine's own.
# platform = [\"linux/amd64\", \"linux/arm64\"]
# Where the image is meant to be pushed; a hint for people.
# name = \"registry.example/team/{name}\"
# Ports besides 80 and 443 that build steps may reach.
# ports = {{ 8443 = \"https\" }}
"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::project::Project;

    #[test]
    fn what_is_written_is_read_and_so_is_what_is_commented_out() {
        let paths = [
            "Dockerfile",
            "docker/gpu.Dockerfile",
            "glm/Dockerfile",
            "a b\"/Dockerfile",
            "x/glm/Dockerfile",
            "Dockerfile.cpu",
        ];
        let text = of(&paths.map(str::to_owned));
        let project = Project::parse(Some(text.as_bytes())).unwrap();
        for (name, context, dockerfile) in [
            ("default", "", "Dockerfile"),
            ("gpu", "", "docker/gpu.Dockerfile"),
            ("glm", "glm", "glm/Dockerfile"),
            ("a-b-", "a b\"", "a b\"/Dockerfile"),
            ("glm-2", "x/glm", "x/glm/Dockerfile"),
            ("cpu", "", "Dockerfile.cpu"),
        ] {
            let recipe = project.recipe(Some(name)).unwrap();
            assert_eq!((recipe.context.as_str(), recipe.dockerfile.as_str()), (context, dockerfile));
        }
        let all =
            of(&[]).replace("# target", "target").replace("# args", "args").replace("# platform", "platform");
        let all = all.replace("# name", "name").replace("# ports", "ports").replace("# [bases]", "[bases]");
        let all = all.replace("# \"python", "\"python").replace('…', &"0".repeat(64));
        let project = Project::parse(Some(all.as_bytes())).unwrap();
        assert!(project.base("python:3.12-slim").is_some() && project.recipe(None).unwrap().ports.len() == 1);
    }

    #[test]
    fn every_field_stands_in_the_documentation() {
        let page = include_str!("../../../docs/countersign-toml.md");
        for wrong in ["nothing = 1", "version = 1\n[image.a]\nnothing = 1"] {
            let error = Project::parse(Some(wrong.as_bytes())).unwrap_err().to_string();
            let (_, fields) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
            for field in fields.split('`').skip(1).step_by(2) {
                let row =
                    [format!("| `{field}` |"), format!("| `[{field}]` |"), format!("| `[{field}.NAME]` |")];
                assert!(row.iter().any(|row| page.contains(row)), "{field} is not documented");
            }
        }
    }
}
