//! `countersign.toml`: what a repository says about its images.
