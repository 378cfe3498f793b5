//! hongyan-api
