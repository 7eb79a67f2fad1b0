import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

/** Around what is promised: a credential in 15 ms from its row, 50 ms otherwise; the provider's deadline at the end. */
const REQUEST_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20];
const PROVIDER_SECONDS = [0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15, 30];
const LOCAL_SECONDS = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5];

/**
 * Everything that is counted, in a registry of its own, so that two servers in one process do not share figures.
 *
 * Labels take values of ours only, each from a short list: no tenant, grant, user, app, address, or anything that a
 * caller or Zoom sent, so that neither secrets nor names leave here and the number of series is bounded.
 */
export type Meters = ReturnType<typeof createMeters>;

export function createMeters() {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const counter = <T extends string>(name: string, help: string, labelNames: readonly T[]) =>
    new Counter<T>({ name: `latchkey_${name}`, help, labelNames: [...labelNames], registers });
  const gauge = <T extends string = never>(name: string, help: string, labelNames: readonly T[] = []) =>
    new Gauge<T>({ name: `latchkey_${name}`, help, labelNames: [...labelNames], registers });
  const histogram = <T extends string>(name: string, help: string, labelNames: readonly T[], buckets: number[]) =>
    new Histogram<T>({ name: `latchkey_${name}`, help, labelNames: [...labelNames], buckets, registers });

  return {
    registry,

    info: gauge('info', 'Always 1; says what this process is.', ['version', 'role', 'database']),
    ready: gauge('ready', '1 while /readyz answers 200.'),
    notReady: gauge('not_ready', '1 for each reason why /readyz answers 503.', ['reason']),
    logLines: counter('log_lines_total', 'Log lines of the level warn or error, also where they are not written.', [
      'level',
    ]),

    operations: counter('graphql_operations_total', 'GraphQL operations over HTTP.', ['operation', 'outcome']),
    operationSeconds: histogram(
      'graphql_operation_duration_seconds',
      'Time to the answer of a GraphQL operation over HTTP; of a stream: to its beginning.',
      ['operation'],
      REQUEST_SECONDS,
    ),
    refusedRequests: counter(
      'refused_requests_total',
      'Requests without a right key, session or signature, and answers of the consent screen that were not taken.',
      ['route', 'reason'],
    ),
    credentials: counter('credential_reads_total', 'Credentials asked for.', ['outcome']),

    refreshes: counter('refreshes_total', 'Refreshes that were leased, by how they ended and why they failed.', [
      'outcome',
      'cause',
      'attempt',
    ]),
    refreshSeconds: histogram(
      'refresh_duration_seconds',
      'From the lease of a refresh until it is settled.',
      ['outcome'],
      PROVIDER_SECONDS,
    ),
    refreshesRunning: gauge('refreshes_running', 'Refreshes that this process is at.'),
    leasesQueued: gauge('leases_queued', 'Leases that this process holds and has not begun.'),
    appsPaused: gauge('provider_apps_paused', 'Provider apps whose breaker is open in this process.'),
    refreshLag: gauge(
      'refresh_lag_seconds',
      'How long the longest overdue credential has been due, of apps without an incident. The same in every process.',
    ),
    appsBehind: gauge('provider_apps_behind', 'Provider apps without an incident that have something due.'),
    incidents: gauge('provider_app_incidents', 'Provider apps whose own credentials Zoom refuses at the moment.'),

    providerRequests: counter('provider_requests_total', 'Requests to Zoom.', ['operation', 'outcome']),
    providerSeconds: histogram(
      'provider_request_duration_seconds',
      'Time until Zoom has answered, or has not.',
      ['operation'],
      PROVIDER_SECONDS,
    ),

    healthTransitions: counter('health_transitions_total', 'Changes of the health of grants that were stored.', [
      'status',
      'reason',
    ]),
    grants: gauge('grants', 'Grants by health. The same in every process, at most a minute old.', ['status', 'reason']),
    revocationsPending: gauge(
      'revocations_pending',
      'Tokens that Zoom has not confirmed the end of. The same in every process.',
    ),
    revocationAge: gauge('revocation_oldest_seconds', 'Age of the oldest of them; 0 without any.'),

    deliveries: counter('deliveries_total', 'Attempts to tell a webhook endpoint of a health event.', ['outcome']),
    deliverySeconds: histogram(
      'delivery_duration_seconds',
      'Time until the webhook endpoint has answered, or has not.',
      ['outcome'],
      PROVIDER_SECONDS,
    ),
    deliveryOverdue: gauge(
      'delivery_overdue_seconds',
      'How long the longest overdue delivery has been due, of endpoints that take what they are told. The same in every process.',
    ),
    endpointsFailing: gauge(
      'webhook_endpoints_failing',
      'Enabled webhook endpoints whose last attempt failed. The same in every process.',
    ),
    endpointsDisabled: gauge(
      'webhook_endpoints_disabled',
      'Webhook endpoints that were disabled because they failed or answered 410. The same in every process.',
    ),

    webhooks: counter('webhooks_total', 'Webhooks of Zoom, by what became of them.', ['outcome']),

    auditEvents: counter('audit_events_total', 'Events of the audit trail that were stored.', ['subject']),
    auditFailures: counter(
      'audit_write_failures_total',
      'Times that the audit trail could not be written: a change was not made, or reads wait or were refused.',
      ['subject'],
    ),
    auditUnrecorded: gauge('audit_unrecorded_reads', 'Events about reads of credentials that wait to be stored.'),

    vaultOperations: counter('vault_operations_total', 'Secrets opened and sealed, and keys got to seal with.', [
      'operation',
      'outcome',
    ]),
    rootKeyOperations: counter(
      'root_key_operations_total',
      'Tenant keys wrapped and unwrapped with a root key, and looks whether that works.',
      ['operation', 'outcome'],
    ),
    rootKeySeconds: histogram(
      'root_key_operation_duration_seconds',
      'Time that the provider of root keys took.',
      ['operation'],
      LOCAL_SECONDS,
    ),
    rootKeyFailing: gauge(
      'root_key_failing_seconds',
      'For how long the provider of root keys has not answered; 0: it does.',
    ),
    vaultCachedKeys: gauge('vault_cached_keys', 'Unwrapped tenant keys in memory.'),

    spoolWrites: counter('spool_writes_total', 'Answers kept until the database has them, by where they are.', [
      'result',
    ]),
    spoolSeconds: histogram('spool_write_duration_seconds', 'Time until they are there.', [], LOCAL_SECONDS),
    spoolPostponed: gauge('spool_postponed', 'Answers that could not be stored yet and are tried again.'),
    spoolFound: counter('spool_found_total', 'Answers given out to be settled again.', []),

    poolConnections: gauge('database_pool_connections', 'Connections to the database.', ['state']),
    poolWaiting: gauge('database_pool_waiting', 'Statements and transactions that wait for a connection.'),
    sharesHeld: gauge(
      'database_shares_held',
      'Connections that tenants, readers and jobs hold of their parts of the pool.',
    ),
    sharesWaiting: gauge('database_shares_waiting', 'Statements and transactions that wait for a part of the pool.'),
    shareWaits: counter(
      'database_share_waits_total',
      'Statements and transactions that found no connection of their part free: served after a wait, or refused.',
      ['outcome'],
    ),
    poolMax: gauge('database_pool_max', 'Connections that this process may have.'),
    databaseUp: gauge('database_up', '1 when the figures of the last scrape could be read from the database.'),
    clockOffset: gauge('clock_offset_seconds', 'How far the clock of this process is ahead of the database.'),

    subscribers: gauge('subscribers', 'Subscriptions that are being served.', ['subscription']),
    eventsDelivered: counter('events_delivered_total', 'Health events handed to subscriptions.', []),
    webSockets: gauge('websockets', 'Open WebSockets.'),

    jobs: counter('job_runs_total', 'Runs of the jobs of the schedule.', ['task', 'result']),
    jobSucceeded: gauge('job_last_success_timestamp_seconds', 'When a job last ended well.', ['task']),
  };
}
