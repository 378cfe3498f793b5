//! hongyan-gateway
