# No timer makes backups any more. The archives stay.
include:
  - preflight.turn

backup-scheduled:
  plasma_backup.scheduled:
    - schedule: null
