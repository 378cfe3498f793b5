//! hongyan-channels
