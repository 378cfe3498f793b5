//! hongyan-embedded
