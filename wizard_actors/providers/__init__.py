"""Wire protocols: one file each, behind the seam of `wizard_actors.providers.base`."""
