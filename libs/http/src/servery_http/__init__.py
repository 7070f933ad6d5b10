"""The fast HTTP front and the keep-alive client that Servery's services share."""
