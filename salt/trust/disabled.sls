# Takes back the authorities of plasma.trust. Images that were built with them keep their copies.
include:
  - preflight.turn

trust-authorities:
  plasma_trust.authorities: []
