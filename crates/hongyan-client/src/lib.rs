//! hongyan-client
