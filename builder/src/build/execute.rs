//! Doing a stage's steps: each over a fresh overlay, whose upper directory becomes one canonical layer.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use attestations::provenance::LayerRecord;
use images::image::MAX_LAYERS;
use images::layer::{Compression, Drawing, Drawn, Fired, Layer, Normaliser, Written, from_upper};
use images::{Descriptor, LayerCache, Store};
use sandbox::{Canceller, Exit, Host, Mount, Overlay, Process, Profile, Upper, User};

use super::add::{GitTaken, name_of};
use super::bases::{Base, layer_of_base, of_base};
use super::config::{self, Config};
use super::copy::{self, Content, ContextTree, CopyError};
use super::emulation::Emulator;
use super::failures::{
    cancelled, copy_failed, fatal_incidents, is_too_long, layer_failed, leaked, machine, mount_failed,
    too_long,
};
use super::limits::StepLimits;
use super::mounts::Mounts;
use super::output::Output;
use super::plan::{self, Action, Step};
use super::root::Root;
use super::{environment, leak, trust};
use crate::capture::{Capture, Exchange, Incident, Planted, StepRecord};
use crate::cli::Session;
use crate::dockerfile::{Network, SecretMount};
use crate::error::{Error, Kind, Result, Told};
use crate::materials;
use crate::progress::{Event, Label, SummaryStep};
use crate::secrets::{Needles, Redactor, Secrets};

/// The machine's part of a build.
pub struct Workshop<'a> {
    /// Where it reports.
    pub session: &'a Session,
    /// What runs commands.
    pub host: &'a Host,
    /// What runs commands for the platform that is built for.
    pub emulator: &'a Emulator,
    /// Where layers go.
    pub store: &'a Store,
    /// Unpacked layers.
    pub cache: &'a LayerCache,
    /// What records the network.
    pub capture: &'a Capture,
    /// A folder of this build alone, for what is mounted into steps.
    pub scratch: &'a Path,
    /// What ends a running command when the person has had enough.
    pub canceller: &'a Canceller,
    /// What a step may use up.
    pub limits: &'a StepLimits,
    /// What steps may be told in confidence.
    pub secrets: &'a Secrets,
}

/// A stage that is being built or is done.
#[derive(Clone)]
pub(super) struct Built {
    pub(super) config: Config,
    pub(super) layers: Vec<(Descriptor, LayerRecord)>,
    /// Its files.
    pub(super) root: Root,
}

/// A layer that a step made, and what stands for it in the next one.
pub(super) struct Made {
    layer: Layer,
    files: Files,
}

enum Files {
    /// They lie in a folder.
    Written(Upper),
    /// They are only in the layer.
    Drawn(Drawn),
}

/// A stage that is done, and what is to be told of it.
pub(super) struct Finished {
    pub(super) built: Built,
    pub(super) told: Records,
}

/// What is told of steps.
#[derive(Default)]
pub(super) struct Records {
    pub(super) exchanges: Vec<Exchange>,
    pub(super) materials: Vec<materials::Step>,
    pub(super) unrecorded: Vec<String>,
    pub(super) fired: Vec<Fired>,
    pub(super) steps: Vec<SummaryStep>,
    pub(super) git: Vec<GitTaken>,
    /// The ids of the secrets that steps were told.
    pub(super) secrets: BTreeSet<String>,
}

/// What a command sees of the network: nothing, or what is planted there.
struct Reach {
    namespace: sandbox::Network,
    planted: Option<Planted>,
}

/// A stage that is going on.
pub(super) struct Run<'a> {
    pub(super) shop: &'a Workshop<'a>,
    pub(super) context: &'a ContextTree,
    pub(super) epoch: i64,
    /// The stages it needs, by number.
    pub(super) done: BTreeMap<usize, Arc<Finished>>,
    pub(super) told: Records,
}

impl Run<'_> {
    /// A stage before its first step.
    pub(super) fn start(&self, needed: &plan::Needed, base: Option<&Base>) -> Result<Built> {
        if let plan::Base::Stage(earlier) = needed.base
            && let Some(built) = self.done.get(&earlier)
        {
            return Ok(built.built.clone());
        }
        let Some(base) = base else {
            let config = Config::default();
            return Ok(Built { config, layers: Vec::new(), root: Root::default() });
        };
        let folders = self.shop.cache.lower_dirs(self.shop.store, &base.image).told();
        let folders = folders.map_err(|error| of_base(&base.asked, error))?;
        let config = config::on_base(base.image.config());
        let created_by = created_by_of_layers(&config);
        let layers = base.image.layers().iter().zip(base.image.diff_ids()).enumerate().map(
            |(index, (layer, diff_id))| {
                let record = LayerRecord {
                    diff_id: *diff_id,
                    digest: layer.digest,
                    size: layer.size,
                    created_by: created_by.get(index).cloned().unwrap_or_default(),
                    from_base: true,
                };
                (layer_of_base(layer), record)
            },
        );
        Ok(Built { layers: layers.collect(), config, root: Root::of_base(folders) })
    }

    /// Does one step; says whether it made a layer.
    pub(super) fn step(&mut self, stage: &mut Built, step: &Step, label: &Label) -> Result<bool> {
        let session = self.shop.session;
        let line = step.line;
        session.tell(&Event::Step { label, line, instruction: &step.text });
        let begun = Instant::now();
        let done = self.act(stage, step, label);
        let is_configuration = step.action == Action::Configure;
        let seconds = if is_configuration { 0.0 } else { begun.elapsed().as_secs_f64() };
        let made = done.inspect_err(|_| session.tell(&Event::StepFailed { label, line, seconds }))?;
        let blob = made.as_ref().map(|made| (made.layer.descriptor.digest, made.layer.descriptor.size));
        let (digest, size) = blob.unzip();
        let size = size.unwrap_or(0);
        session.tell(&Event::StepDone { label, line, seconds, layer: digest, size, is_configuration });
        let (label, instruction) = (label.to_string(), step.text.clone());
        self.told.steps.push(SummaryStep { label, instruction, seconds, layer: blob });
        let Some(Made { layer, files }) = made else { return Ok(false) };
        match files {
            Files::Written(upper) => stage.root.add_written(upper),
            Files::Drawn(drawn) => stage.root.add_drawn(layer.clone(), drawn),
        }
        stage.config.rootfs.diff_ids.push(layer.diff_id);
        let record = LayerRecord {
            diff_id: layer.diff_id,
            digest: layer.descriptor.digest,
            size: layer.descriptor.size,
            created_by: step.created_by.clone(),
            from_base: false,
        };
        stage.layers.push((layer.descriptor, record));
        Ok(true)
    }

    fn act(&mut self, stage: &Built, step: &Step, label: &Label) -> Result<Option<Made>> {
        if self.shop.canceller.is_cancelled() {
            return Err(cancelled());
        }
        if step.action == Action::Configure {
            return Ok(None);
        }
        if stage.layers.len() >= MAX_LAYERS {
            let what = format!("line {}: {}: {MAX_LAYERS} layers lie below it already", step.line, step.text);
            return Err(Error::new(Kind::Input, what)
                .hint("an image has no more: join instructions, or copy what they made into a new stage"));
        }
        let epoch = self.epoch;
        match &step.action {
            Action::Configure => Ok(None),
            Action::Run { args, env, cwd, user, script, .. } => {
                self.run(stage, step, label, (args, env, cwd, user), script.as_ref())
            }
            Action::Workdir { path, user } => {
                let user = self.user(&stage.root, user, step)?;
                self.draw(stage, step, &mut |drawing| {
                    copy::make_folder(drawing, path, (user.uid, user.gid), epoch)
                })
            }
            Action::Copy { .. } => self.copy(stage, step, label),
        }
    }

    /// Draws a layer over what the stage has.
    pub(super) fn draw<'t>(
        &mut self,
        stage: &Built,
        step: &Step,
        put: &mut dyn FnMut(&mut Drawing<'_, Content<'t>>) -> std::result::Result<(), CopyError>,
    ) -> Result<Option<Made>> {
        let below = stage.root.strata();
        let mut drawing = Drawing::over(&below, self.epoch);
        let done = put(&mut drawing).and_then(|()| {
            drawing.write(self.shop.store, Compression::Gzip, Normaliser::Version1, &mut |content| content())
        });
        let (Written { layer, fired }, drawn) = done.map_err(|cause| copy_failed(step, cause))?;
        self.told.fired.extend(fired);
        let Some(layer) = layer else { return Ok(None) };
        self.refresh(&|path| Ok(drawn.mentions(path)))?;
        Ok(Some(Made { layer, files: Files::Drawn(drawn) }))
    }

    /// Runs a command; the layer that came of it, and the folder that stands for it in the next step.
    fn run(
        &mut self,
        stage: &Built,
        step: &Step,
        label: &Label,
        (args, env, cwd, user): (&[String], &[(String, String)], &str, &str),
        script: Option<&plan::Script>,
    ) -> Result<Option<Made>> {
        let mut mounts = self.mounts(step)?;
        let needles = Arc::new(self.tell(step, &mut mounts)?);
        let user = self.user(&stage.root, user, step)?;
        // The kernel lets both wait, and neither needs the other.
        let (ground, network) = std::thread::scope(|scope| {
            let network = scope.spawn(|| self.network(step, &needles));
            (self.ground(stage, &mounts), network.join())
        });
        let (overlay, lowers) = ground?;
        let network = network.map_err(|_| Error::new(Kind::Bug, "setting up a network ended early"))??;
        let mut process = self.process(args, env, cwd, user);
        process.mounts.extend(mounts.mounts.iter().cloned());
        process.tmpfs.extend(mounts.tmpfs.iter().cloned());
        process.confidential = !mounts.variables.is_empty();
        for (name, value) in &mounts.variables {
            process.env.retain(|(known, _)| known != name);
            process.env.push((name.clone(), value.to_string()));
        }
        if let Some(script) = script {
            process.mounts.push(self.script(script)?);
        }
        self.command(&process, network, overlay.merged(), step, label, &needles)?;
        trust::remove(overlay.upper(), self.shop.capture.ca_pem()).map_err(|cause| {
            match is_too_long(&cause) {
                true => too_long(step),
                false => Error::io("cleaning", overlay.upper(), cause),
            }
        })?;
        let found = leak::find(overlay.upper(), &needles);
        if let Some(leak) = found.map_err(|cause| Error::io("searching", overlay.upper(), cause))? {
            return Err(leaked(step, &leak));
        }
        let (store, upper) = (self.shop.store, overlay.upper());
        let written = from_upper(store, upper, &lowers, self.epoch, Compression::Gzip, Normaliser::Version1);
        let Written { layer, fired } = written.map_err(|cause| layer_failed(step, cause))?;
        self.told.fired.extend(fired);
        let made = layer.map(|layer| overlay.into_upper().map(|upper| (layer, upper)));
        let made = made.transpose().map_err(machine)?;
        drop(mounts);
        // What was left would be in the next step's caches, which have to be empty.
        sandbox::remove_tree(&self.shop.scratch.join("mounts")).map_err(machine)?;
        let Some((layer, upper)) = made else { return Ok(None) };
        self.refresh(&|path| match std::fs::symlink_metadata(upper.path().join(path)) {
            Ok(_) => Ok(true),
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(cause),
        })?;
        Ok(Some(Made { layer, files: Files::Written(upper) }))
    }

    /// Takes down the lists of certificates when a step changed something near what they were made of.
    fn refresh(&self, changed: &dyn Fn(&Path) -> std::io::Result<bool>) -> Result<()> {
        let injected = self.injected();
        match trust::is_stale(&injected, changed).map_err(|cause| Error::io("reading", &injected, cause))? {
            true => sandbox::remove_tree(&injected).map_err(machine),
            false => Ok(()),
        }
    }

    /// The root of a step, and the folders it stands on.
    fn ground(&self, stage: &Built, mounts: &Mounts) -> Result<(Overlay, Vec<PathBuf>)> {
        let mut lowers = stage.root.folders(self.shop.host, self.shop.store)?;
        let injected = self.injected();
        if !injected.exists() {
            self.inject(&lowers, &injected)?;
        }
        lowers.insert(0, injected);
        let overlay = self.shop.host.overlay_with(&lowers, &mounts.points).map_err(machine)?;
        Ok((overlay, lowers))
    }

    /// What a command sees of the network; none for steps that have no command.
    fn network(&self, step: &Step, needles: &Arc<Needles>) -> Result<Option<Reach>> {
        let Action::Run { network, .. } = &step.action else { return Ok(None) };
        let namespace = self.shop.host.network().map_err(machine)?;
        let planted = match network {
            Network::None => None,
            Network::Default => {
                let planted = self.shop.capture.plant(&namespace, &name_of(step), needles);
                Some(planted.map_err(|cause| {
                    Error::new(Kind::Machine, "the step's network could not be set up").because(cause)
                })?)
            }
        };
        Ok(Some(Reach { namespace, planted }))
    }

    /// Where the lists of certificates lie that a stage's steps see, for as long as no step changes what is there.
    fn injected(&self) -> PathBuf {
        self.shop.scratch.join("injected")
    }

    fn mounts(&self, step: &Step) -> Result<Mounts> {
        let Action::Run { mounts, .. } = &step.action else { return Ok(Mounts::default()) };
        let stages = |stage: usize| self.folders_of(stage);
        let scratch = self.shop.scratch.join("mounts");
        Mounts::make(mounts, self.shop.host, &scratch, self.context, &stages)
            .map_err(|error| mount_failed(step, error))
    }

    /// Adds the step's secrets to what it has mounted; what they look like.
    fn tell(&mut self, step: &Step, mounts: &mut Mounts) -> Result<Needles> {
        let Action::Run { secrets: wanted, .. } = &step.action else { return Ok(Needles::default()) };
        let (host, secrets) = (self.shop.host, self.shop.secrets);
        for one in wanted {
            let Some(bytes) = secrets.get(&one.id) else { continue };
            mounts.tell(one, bytes, host).map_err(|error| mount_failed(step, error))?;
            self.told.secrets.insert(one.id.clone());
            let reason = format!(
                "line {}: the step was told the secret {}, which only those have who were given it",
                step.line, one.id
            );
            if !self.told.unrecorded.contains(&reason) {
                self.told.unrecorded.push(reason);
            }
        }
        Ok(secrets.needles(wanted.iter().map(|one| one.id.as_str())))
    }

    /// Puts what has to lie above a stage's folders into one of its own, which appears whole.
    fn inject(&self, folders: &[PathBuf], into: &Path) -> Result<()> {
        let making = into.with_extension("making");
        let failed = |cause| Error::io("making", into, cause);
        sandbox::remove_tree(&making).map_err(machine)?;
        std::fs::create_dir(&making).map_err(failed)?;
        let root = self.shop.host.overlay_readonly(folders).map_err(machine)?;
        trust::inject(root.merged(), &making, self.shop.capture.ca_pem()).map_err(|cause| {
            Error::new(Kind::Machine, "the base's list of certificates could not be prepared").because(cause)
        })?;
        std::fs::rename(&making, into).map_err(failed)
    }

    /// The files of an earlier stage, as folders.
    pub(super) fn folders_of(&self, stage: usize) -> Result<Vec<PathBuf>> {
        let earlier = self.done.get(&stage);
        let earlier =
            earlier.ok_or_else(|| Error::new(Kind::Bug, "a stage is looked into before it is built"))?;
        earlier.built.root.folders(self.shop.host, self.shop.store)
    }

    /// Whom a name or number means in the image.
    pub(super) fn user(&self, root: &Root, text: &str, step: &Step) -> Result<User> {
        let text = if text.is_empty() { "0" } else { text };
        let refuse = |cause: Error| {
            Error::new(Kind::Input, format!("line {}: the image has no user {text}", step.line))
                .hint("make the user in an earlier RUN, or give its number")
                .because(cause)
        };
        let (host, store) = (self.shop.host, self.shop.store);
        let [passwd, group] = ["etc/passwd", "etc/group"].map(|path| root.text(path, host, store));
        let (passwd, group) = (passwd.map_err(refuse)?, group.map_err(refuse)?);
        sandbox::resolve_user_in(&passwd, &group, text).map_err(machine).map_err(refuse)
    }

    /// `--chown`: a user's number alone stands for the group of the same number too.
    pub(super) fn owner(&self, root: &Root, text: &str, step: &Step) -> Result<(u32, u32)> {
        match text.parse::<u32>() {
            Ok(number) => Ok((number, number)),
            Err(_) => self.user(root, text, step).map(|user| (user.uid, user.gid)),
        }
    }

    fn process(&self, args: &[String], env: &[(String, String)], cwd: &str, user: User) -> Process {
        let mounts = environment::MOUNTED.iter().map(|file| Mount {
            source: self.shop.scratch.join(file.name),
            target: file.target.to_owned(),
            readonly: false,
        });
        let mut process = Process::new(Profile::Build, args);
        process.env = environment::variables(env, self.epoch);
        process.cwd = cwd.to_owned();
        process.user = user;
        process.hostname = environment::HOSTNAME.to_owned();
        process.mounts = mounts.collect();
        process.limits = self.shop.limits.of_process();
        process
    }

    /// Puts a program of the Dockerfile where the runtime can mount it; `/dev` is the runtime's and leaves no trace.
    fn script(&self, script: &plan::Script) -> Result<Mount> {
        use std::os::unix::fs::PermissionsExt as _;
        let source = self.shop.scratch.join("script");
        let failed = |cause| Error::io("writing", &source, cause);
        std::fs::write(&source, &script.text).map_err(failed)?;
        std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o755)).map_err(failed)?;
        Ok(Mount { source: source.clone(), target: script.path.clone(), readonly: true })
    }

    fn command(
        &mut self,
        process: &Process,
        network: Option<Reach>,
        root: &Path,
        step: &Step,
        label: &Label,
        needles: &Arc<Needles>,
    ) -> Result<()> {
        let session = self.shop.session;
        let mut show = |text: &str| session.tell(&Event::Output { label, text });
        let mut output = Output::new(&mut show);
        let Reach { namespace, planted } =
            network.ok_or_else(|| Error::new(Kind::Bug, "a command without a network"))?;
        let mut redactor = Redactor::new(needles);
        let mut take = |_, bytes: &[u8]| output.take(&redactor.take(bytes));
        let exit = self.shop.host.run_until(process, root, &namespace, &mut take, self.shop.canceller);
        let record = planted.map(|planted| planted.finish());
        output.take(&redactor.finish());
        let lines = output.finish();
        let incidents = record.map(|record| self.note(step, record, label)).transpose()?.unwrap_or_default();
        let exit = exit.map_err(machine)?;
        let hint = self.shop.limits.hint(exit, &lines);
        let how = match exit {
            Exit::Code(0) => return Ok(()),
            Exit::Code(code) => format!("ended with exit code {code}"),
            Exit::Signal(signal) => format!("was ended by signal {signal}"),
            Exit::TimedOut => "took too long".to_owned(),
            Exit::OutOfMemory => "ran out of memory".to_owned(),
            Exit::Cancelled => return Err(cancelled()),
        };
        let error = Error::new(Kind::Step, format!("line {}: {} {how}", step.line, step.text)).details(lines);
        let network = (!incidents.is_empty()).then(|| format!("its network: {}", incidents.join("; ")));
        let hints: Vec<String> = hint.into_iter().chain(network).collect();
        Err(if hints.is_empty() { error } else { error.hint(hints.join("; ")) })
    }

    /// Keeps what a step did on the network; returns what went wrong there.
    ///
    /// # Errors
    /// When something went wrong that the step may not have minded, but after which the build is worth nothing.
    pub(super) fn note(&mut self, step: &Step, record: StepRecord, label: &Label) -> Result<Vec<String>> {
        let incidents: Vec<String> = record.incidents.iter().map(ToString::to_string).collect();
        for text in &incidents {
            self.shop.session.tell(&Event::Incident { label, text });
        }
        if record.incidents_dropped > 0 {
            self.told
                .unrecorded
                .push(format!("line {}: more incidents on the network than are listed", step.line));
        }
        self.told.unrecorded.extend(
            record.incidents.iter().filter(|incident| incident.unrecorded_bytes > 0).map(ToString::to_string),
        );
        self.told.exchanges.extend(record.exchanges);
        self.told.materials.extend(record.material);
        let fatal: Vec<&Incident> =
            record.incidents.iter().filter(|incident| incident.kind.is_fatal()).collect();
        match fatal.first() {
            None => Ok(incidents),
            Some(first) => Err(fatal_incidents(step, first, &fatal)),
        }
    }
}

/// Whether a step has the secrets without which it cannot be done.
///
/// # Errors
/// [`Kind::NotFound`] when one was not given.
pub(super) fn check_secrets(step: &Step, given: &Secrets) -> Result<()> {
    let Action::Run { secrets, .. } = &step.action else { return Ok(()) };
    match secrets.iter().find(|one| one.required && given.get(&one.id).is_none()) {
        None => Ok(()),
        Some(SecretMount { id, .. }) => {
            let what =
                format!("line {}: {}: the secret {id} is required and was not given", step.line, step.text);
            Err(Error::new(Kind::NotFound, what).hint(format!("give it: --secret id={id},src=FILE")))
        }
    }
}

/// What the base's history says made each of its layers.
fn created_by_of_layers(config: &Config) -> Vec<String> {
    let with_layer = config.history.iter().filter(|entry| !entry.empty_layer);
    with_layer.map(|entry| entry.created_by.clone().unwrap_or_default()).collect()
}
