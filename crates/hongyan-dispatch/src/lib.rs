//! hongyan-dispatch
