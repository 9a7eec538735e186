//! Executes a RUN: its command runs over a fresh overlay, whose upper directory becomes one canonical layer, in a
//! network whose exchanges are all recorded.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use images::layer::{Compression, Keeping, Normaliser, Written, from_upper};
use sandbox::{Exit, Memory, Mount, Overlay, Process, Profile, User};

use crate::dockerfile::Network;
use crate::error::{Error, Kind, Result};
use crate::executor::failures::{
    cancelled, fatal_incidents, is_too_long, layer_failed, leaked, machine, mount_failed, too_long,
};
use crate::executor::mounts::Mounts;
use crate::executor::output::Output;
use crate::executor::stage::{LayerFiles, NewLayer, StageRun, StageState};
use crate::executor::{environment, leak, trust};
use crate::plan::step::{Execution, Script, Step};
use crate::progress::{Event, Label};
use crate::secrets::Redactor;
use recorder::{Incident, Planted, SecretPatterns, StepRecord};

/// A command's network: an empty namespace, or one with the recorder in it.
struct Reach {
    namespace: sandbox::Network,
    planted: Option<Planted>,
}

impl StageRun<'_> {
    /// Runs a command. Returns its layer, and the folder with the layer's files for the next step.
    pub(crate) fn run(
        &mut self,
        stage: &StageState,
        step: &Step,
        execution: &Execution,
        label: &Label,
    ) -> Result<Option<NewLayer>> {
        let mut mounts = self.mounts(step, execution)?;
        let needles = Arc::new(self.add_secrets(step, execution, &mut mounts)?);
        let user = self.user(&stage.root, &execution.user, step)?;
        // Setting up either waits for the kernel, and neither needs the other.
        let (overlay, network) = std::thread::scope(|scope| {
            let network = scope.spawn(|| self.network(step, execution.network, &needles));
            (self.overlay(stage, &mounts), network.join())
        });
        let (overlay, lowers) = overlay?;
        let network = network.map_err(|_| Error::new(Kind::Bug, "setting up a network ended early"))??;
        let files = self.mounted_files()?;
        let mut process = self.process(execution, user, files.path());
        process.mounts.extend(mounts.mounts.iter().cloned());
        process.tmpfs.extend(mounts.tmpfs.iter().cloned());
        process.confidential = !mounts.variables.is_empty();
        for (name, value) in &mounts.variables {
            process.env.retain(|(known, _)| known != name);
            process.env.push((name.clone(), value.to_string()));
        }
        if let Some(script) = &execution.script {
            process.mounts.push(self.script(script)?);
        }
        self.command(&process, network, overlay.merged(), step, label, &needles)?;
        drop(files);
        trust::remove(overlay.upper(), self.resources.capture.ca_pem()).map_err(
            |cause| match is_too_long(&cause) {
                true => too_long(step),
                false => Error::io("cleaning", overlay.upper(), cause),
            },
        )?;
        let found = leak::find(overlay.upper(), &needles);
        if let Some(leak) = found.map_err(|cause| Error::io("searching", overlay.upper(), cause))? {
            return Err(leaked(step, &leak));
        }
        let (store, upper) = (self.resources.store, overlay.upper());
        let keeping = if self.is_in_image { Keeping::Blob(Compression::Gzip) } else { Keeping::DiffId };
        let written = from_upper(store, upper, &lowers, self.epoch, keeping, Normaliser::Version1);
        let Written { layer, applied } = written.map_err(|cause| layer_failed(step, cause))?;
        self.reports.applied.extend(applied);
        let made = layer.map(|layer| overlay.into_upper().map(|upper| (layer, upper)));
        let made = made.transpose().map_err(machine)?;
        drop(mounts);
        // Caches have to be empty for the next step.
        sandbox::remove_tree(&self.resources.scratch.join("mounts")).map_err(machine)?;
        let Some((layer, upper)) = made else { return Ok(None) };
        Ok(Some(NewLayer { layer, files: LayerFiles::Written(upper) }))
    }

    /// The overlay for a step, and its lower folders.
    fn overlay(&self, stage: &StageState, mounts: &Mounts) -> Result<(Overlay, Vec<PathBuf>)> {
        let mut lowers = stage.root.folders(self.resources)?;
        let injected = self.injected();
        if !injected.exists() {
            self.inject(&lowers, &injected)?;
        }
        lowers.insert(0, injected);
        let overlay = self.resources.host.overlay_with(&lowers, &mounts.points).map_err(machine)?;
        Ok((overlay, lowers))
    }

    /// Sets up a command's network.
    fn network(&self, step: &Step, network: Network, needles: &Arc<SecretPatterns>) -> Result<Reach> {
        let namespace = self.resources.host.network().map_err(machine)?;
        let planted = match network {
            Network::None => None,
            Network::Default => {
                let planted = self.resources.capture.plant(&namespace, &step.id, needles);
                Some(planted.map_err(|cause| {
                    Error::new(Kind::Machine, "the step's network could not be set up").because(cause)
                })?)
            }
        };
        Ok(Reach { namespace, planted })
    }

    fn mounts(&self, step: &Step, execution: &Execution) -> Result<Mounts> {
        let stages = |stage: usize| self.folders_of(stage);
        let scratch = self.resources.scratch.join("mounts");
        Mounts::make(&execution.mounts, self.resources.host, &scratch, self.context, &stages)
            .map_err(|error| mount_failed(step, error))
    }

    /// Adds the step's secrets to its mounts, and returns the patterns to search for.
    fn add_secrets(
        &mut self,
        step: &Step,
        execution: &Execution,
        mounts: &mut Mounts,
    ) -> Result<SecretPatterns> {
        let wanted = &execution.secrets;
        let (host, secrets) = (self.resources.host, self.resources.secrets);
        for one in wanted {
            let Some(bytes) = secrets.get(&one.id) else { continue };
            mounts.add_secret(one, bytes, host).map_err(|error| mount_failed(step, error))?;
            self.reports.secrets.insert(one.id.clone());
            let reason = format!(
                "line {}: the step was reports the secret {}, which only those have who were given it",
                step.line, one.id
            );
            if !self.reports.unrecorded.contains(&reason) {
                self.reports.unrecorded.push(reason);
            }
        }
        Ok(secrets.needles(wanted.iter().map(|one| one.id.as_str())))
    }

    /// Fresh copies of the files that are mounted over the image's, and that a command may write to. In memory and
    /// bounded, because they belong to no layer: changes must neither outlive the step nor fill a disk.
    fn mounted_files(&self) -> Result<Memory> {
        let capture = self.resources.capture;
        let files = self.resources.host.memory_of(environment::MOUNTED_SIZE).map_err(machine)?;
        let authority = (capture.ca_pem(), capture.ca_der());
        environment::write_mounted(files.path(), authority, capture.is_replay())
            .map_err(|cause| Error::io("writing into", files.path(), cause))?;
        Ok(files)
    }

    fn process(&self, execution: &Execution, user: User, files: &Path) -> Process {
        let mounts = environment::MOUNTED.iter().map(|file| Mount {
            source: files.join(file.name),
            target: file.target.to_owned(),
            readonly: false,
        });
        let mut process = Process::new(Profile::Build, &execution.args);
        process.env = environment::variables(&execution.env, self.epoch);
        process.cwd.clone_from(&execution.cwd);
        process.user = user;
        process.hostname = environment::HOSTNAME.to_owned();
        process.mounts = mounts.collect();
        process.limits = self.resources.limits.of_process();
        process
    }

    /// Writes a program of the Dockerfile to a file and mounts it in `/dev`, which the runtime mounts, so that it
    /// leaves no trace in the layer.
    fn script(&self, script: &Script) -> Result<Mount> {
        use std::os::unix::fs::PermissionsExt as _;
        let source = self.resources.scratch.join("script");
        let failed = |cause| Error::io("writing", &source, cause);
        std::fs::write(&source, &script.text).map_err(failed)?;
        std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(Mount { source: source.clone(), target: script.path.clone(), readonly: true })
    }

    fn command(
        &mut self,
        process: &Process,
        Reach { namespace, planted }: Reach,
        root: &Path,
        step: &Step,
        label: &Label,
        needles: &Arc<SecretPatterns>,
    ) -> Result<()> {
        let workspace = self.resources.workspace;
        let mut show = |text: &str| workspace.report(&Event::Output { label, text });
        let mut output = Output::new(&mut show);
        let mut redactor = Redactor::new(needles);
        let mut take = |_, bytes: &[u8]| output.take(&redactor.take(bytes));
        let exit =
            self.resources.host.run_until(process, root, &namespace, &mut take, self.resources.canceller);
        let record = planted.map(|planted| planted.finish());
        output.take(&redactor.finish());
        let lines = output.finish();
        let incidents = record.map(|record| self.note(step, record, label)).transpose()?.unwrap_or_default();
        let exit = exit.map_err(machine)?;
        let hint = self.resources.limits.hint(exit, &lines);
        let how = match exit {
            Exit::Code(0) => return Ok(()),
            Exit::Code(code) => format!("ended with exit code {code}"),
            Exit::Signal(signal) => format!("was ended by signal {signal}"),
            Exit::TimedOut => "took too long".to_owned(),
            Exit::OutOfMemory => "ran out of memory".to_owned(),
            Exit::Cancelled => return Err(cancelled()),
        };
        let error = Error::new(Kind::Step, format!("{} {how}", step.named())).details(lines);
        let network = (!incidents.is_empty()).then(|| format!("its network: {}", incidents.join("; ")));
        let hints: Vec<String> = hint.into_iter().chain(network).collect();
        Err(if hints.is_empty() { error } else { error.hint(hints.join("; ")) })
    }

    /// Keeps the record of a step's network; returns its incidents.
    ///
    /// # Errors
    /// At an incident that the step may have ignored, but that makes the build worthless.
    pub(crate) fn note(&mut self, step: &Step, record: StepRecord, label: &Label) -> Result<Vec<String>> {
        let of_line = |incident: &Incident| format!("line {}: {incident}", step.line);
        let incidents: Vec<String> = record.incidents.iter().map(of_line).collect();
        for text in &incidents {
            self.resources.workspace.report(&Event::Incident { label, text });
        }
        if record.incidents_dropped > 0 {
            self.reports
                .unrecorded
                .push(format!("line {}: more incidents on the network than are listed", step.line));
        }
        self.reports
            .unrecorded
            .extend(record.incidents.iter().filter(|incident| incident.unrecorded_bytes > 0).map(of_line));
        let mut signed: Vec<&str> = record
            .step
            .exchanges
            .iter()
            .map(|it| &*it.request.url)
            .filter(|url| recorder::is_signed(url))
            .collect();
        signed.sort_unstable();
        signed.dedup();
        for url in signed {
            // The provenance has the query; the log does not need it.
            let place = url.split('?').next().unwrap_or_default();
            let message = format!(
                "line {}: the query of {place} holds a signature or token, which stands in the record and the \
                 provenance for everybody to read: let it expire, or give it in a header",
                step.line
            );
            self.resources.workspace.report(&Event::Warning { message: &message, path: None });
        }
        self.reports.responses.push(record.step);
        let fatal: Vec<&Incident> =
            record.incidents.iter().filter(|incident| incident.kind.is_fatal()).collect();
        match fatal.first() {
            None => Ok(incidents),
            Some(first) => Err(fatal_incidents(step, first, &fatal)),
        }
    }

    /// Removes the injected certificate lists when a step changed something that they were made from.
    pub(crate) fn refresh(&self, changed: &dyn Fn(&Path) -> std::io::Result<bool>) -> Result<()> {
        let injected = self.injected();
        match trust::is_stale(&injected, changed).map_err(|cause| Error::io("reading", &injected, cause))? {
            true => sandbox::remove_tree(&injected).map_err(machine),
            false => Ok(()),
        }
    }

    /// The folder with the injected certificate lists of a stage, which its steps share until one changes the
    /// originals.
    fn injected(&self) -> PathBuf {
        self.resources.scratch.join("injected")
    }

    /// Creates the injected certificate lists for a stage's folders. The folder appears complete or not at all.
    fn inject(&self, folders: &[PathBuf], into: &Path) -> Result<()> {
        let making = into.with_extension("making");
        let failed = |cause| Error::io("making", into, cause);
        sandbox::remove_tree(&making).map_err(machine)?;
        std::fs::create_dir(&making).map_err(failed)?;
        let root = self.resources.host.overlay_readonly(folders).map_err(machine)?;
        trust::inject(root.merged(), &making, self.resources.capture.ca_pem()).map_err(|cause| {
            Error::new(Kind::Machine, "the base's list of certificates could not be prepared").because(cause)
        })?;
        std::fs::rename(&making, into).map_err(failed)
    }
}
