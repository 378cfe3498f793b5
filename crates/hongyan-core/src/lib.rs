//! hongyan-core
