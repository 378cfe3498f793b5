//! hongyan-sandbox
