"""The OME dialect: ``ome.io`` manifests."""
