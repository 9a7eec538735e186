//! The SLSA provenance of a build.
