//! What a RUN step did on the network.
