//! hongyan-testkit
