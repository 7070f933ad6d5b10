"""The KubeDL dialect: ``serving.kubedl.io`` manifests."""
