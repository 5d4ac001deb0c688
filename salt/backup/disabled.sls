# No timer makes backups any more. The archives stay.
backup-scheduled:
  plasma_backup.scheduled:
    - schedule: null
