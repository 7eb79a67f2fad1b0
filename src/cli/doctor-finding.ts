/** What one check found. */
export interface Finding {
  check:
    | 'settings'
    | 'root key'
    | 'database'
    | 'database role'
    | 'migrations'
    | 'deployment'
    | 'clock'
    | 'public URL'
    | 'webhooks';
  status: 'passed' | 'warned' | 'failed';
  detail: string;
  /** What mends it; null where there is nothing to mend. */
  remedy: string | null;
}

export const passed = (check: Finding['check'], detail: string): Finding => ({
  check,
  status: 'passed',
  detail,
  remedy: null,
});

export const warned = (check: Finding['check'], detail: string, remedy: string): Finding => ({
  check,
  status: 'warned',
  detail,
  remedy,
});

export const failed = (check: Finding['check'], detail: string, remedy: string): Finding => ({
  check,
  status: 'failed',
  detail,
  remedy,
});
