//! Encapsulations, routes, neighbours.
