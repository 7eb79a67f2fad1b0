import sql from 'sql-template-tag';
import type { SqlFragment } from '../database/database.js';
import { DomainError } from '../errors.js';
import { ZoomMeetingUnknownError } from '../zoom/errors.js';
import type { CredentialDeps } from './credential.js';
import { callWithGrant, type CallingGrant } from './grant-call.js';
import { isLive } from './health.js';
import type { HealthColumns } from './health-event.js';
import { writeDirectory } from './meeting-directory.js';
import { allows, MEETING_SCOPES, type MeetingCall, scopeFor } from './meeting-scope.js';

/** Which meeting, and where it is looked for. */
export interface MeetingQuery {
  /** Digits; spaces and dashes, as people write the number, are passed over. */
  meetingId: string;
  /** The product's identifier of a tenant; null: all that the caller may see. */
  tenantId: string | null;
  /** The only tenant that the caller may see, by its row; null: all. */
  onlyTenantId: string | null;
}

/** A grant that reaches a meeting: the host's own, or one for the host's whole account. */
export interface HostGrant extends CallingGrant, HealthColumns {
  hostUserId: string;
  scopes: string[];
}

/** Grants that are asked at the provider for a meeting that the directory does not have. */
const MAX_ASKED = 4;
const READ_MEETING_SCOPES = [...MEETING_SCOPES.readMeeting.user, ...MEETING_SCOPES.readMeeting.admin];
/** What a caller who wants a meeting's host may be after. */
export const HOST_CALLS = ['localRecordingToken', 'userToken', 'ownZakToken', 'readMeeting'] as const;

export const reachOf = ({ kind }: Pick<HostGrant, 'kind'>): 'own' | 'account' =>
  kind === 'INSTALLATION' ? 'account' : 'own';

/** The digits of a meeting number, or null where it is none. */
export function normalMeetingId(text: string): string | null {
  const digits = text.replaceAll(/[\s-]/g, '');
  return /^\d{8,15}$/.test(digits) ? digits : null;
}

/** Columns of `g` (grant), `a` (its app) and `t` (its tenant). */
export const GRANT_COLUMNS = sql`g.id AS "grantId", g.tenant_id AS "tenantId", t.external_id AS "externalTenantId",
  g.external_user_id AS "externalUserId", g.kind, a.environment, g.provider_account_id AS "providerAccountId",
  g.granted_scopes AS scopes, g.health_status AS "healthStatus", g.health_reason AS "healthReason"`;

const inTenants = ({ tenantId, onlyTenantId }: MeetingQuery): SqlFragment => sql`
  (${tenantId}::text IS NULL OR t.external_id = ${tenantId})
  AND (${onlyTenantId}::uuid IS NULL OR t.id = ${onlyTenantId}::uuid)`;

/**
 * The grants that reach a meeting, the one that can best make one of `calls` first: live before ended, with the scope
 * before without, the host's own before an administrator's, healthy before degraded, recent before old.
 */
export async function findHostGrants(
  deps: CredentialDeps,
  query: MeetingQuery,
  calls: readonly MeetingCall[],
): Promise<HostGrant[]> {
  const meetingId = normalMeetingId(query.meetingId);
  if (meetingId === null || query.tenantId?.includes('\0')) return [];
  const known = await fromDirectory(deps, query, meetingId);
  // To ask every tenant's account would tell strangers which meetings are looked for.
  const isBounded = query.tenantId !== null || query.onlyTenantId !== null;
  if (known.length === 0 && isBounded && (await askForHost(deps, query, meetingId))) {
    return ranked(await fromDirectory(deps, query, meetingId), calls);
  }
  return ranked(known, calls);
}

/** The grant that can act for a meeting's host; null where none can, or nothing is known of the meeting. */
export async function hostOfMeeting(deps: CredentialDeps, query: MeetingQuery): Promise<string | null> {
  const [best] = await findHostGrants(deps, query, HOST_CALLS);
  return best !== undefined && isLive(best.healthStatus) ? best.grantId : null;
}

function fromDirectory(deps: CredentialDeps, query: MeetingQuery, meetingId: string): Promise<HostGrant[]> {
  return deps.db.query<HostGrant>(sql`
    SELECT DISTINCT ON (g.health_since, g.id) ${GRANT_COLUMNS}, m.host_user_id AS "hostUserId"
    FROM hosted_meeting m JOIN tenant t ON t.id = m.tenant_id
    JOIN provider_grant known ON known.id = m.grant_id JOIN provider_app known_app ON known_app.id = known.app_id
    JOIN provider_grant g ON g.tenant_id = m.tenant_id AND g.provider_account_id = known.provider_account_id
      AND (g.kind = 'INSTALLATION' OR g.provider_user_id = m.host_user_id)
    JOIN provider_app a ON a.id = g.app_id AND a.environment = known_app.environment
    WHERE m.meeting_id = ${meetingId} AND NOT m.is_gone AND g.health_status <> 'REVOKED' AND ${inTenants(query)}
    ORDER BY g.health_since DESC, g.id, m.as_of DESC`);
}

/** The grant that can best make one of `calls` first. */
export function ranked(grants: readonly HostGrant[], calls: readonly MeetingCall[]): HostGrant[] {
  const score = (grant: HostGrant) => {
    const reach = reachOf(grant);
    const isAble = calls.some((call) => allows(grant.scopes, call, reach));
    return (
      (isLive(grant.healthStatus) ? 8 : 0) +
      (isAble ? 4 : 0) +
      (reach === 'own' ? 2 : 0) +
      (grant.healthStatus === 'HEALTHY' ? 1 : 0)
    );
  };
  return grants.toSorted((a, b) => score(b) - score(a));
}

/**
 * Asks the provider whose meeting it is, with the grants of the tenant that may ask: those for a whole account first.
 * What is found is added to the directory.
 *
 * @returns whether it was found.
 */
async function askForHost(deps: CredentialDeps, query: MeetingQuery, meetingId: string): Promise<boolean> {
  const grants = await deps.db.query<HostGrant>(sql`
    SELECT ${GRANT_COLUMNS}, '' AS "hostUserId"
    FROM provider_grant g JOIN provider_app a ON a.id = g.app_id JOIN tenant t ON t.id = g.tenant_id
    WHERE g.health_status IN ('HEALTHY', 'DEGRADED') AND ${inTenants(query)}
      AND g.granted_scopes && ${READ_MEETING_SCOPES}::text[]
    ORDER BY g.kind = 'INSTALLATION' DESC, g.health_status, g.health_since DESC LIMIT ${MAX_ASKED}`);
  for (const grant of grants) {
    const reach = reachOf(grant);
    if (!allows(grant.scopes, 'readMeeting', reach)) continue;
    try {
      const scope = scopeFor('readMeeting', reach);
      const { hostUserId } = await callWithGrant(deps, grant, scope, (caller) =>
        deps.zoom.meetings.readMeeting(caller, meetingId),
      );
      if (await addFound(deps, grant, { meetingId, hostUserId })) return true;
    } catch (error) {
      // Not this one's meeting, or it cannot tell now: the next may.
      if (!(error instanceof ZoomMeetingUnknownError) && !(error instanceof DomainError)) throw error;
    }
  }
  return false;
}

/** @returns whether a grant of the tenant reaches the host. */
async function addFound(
  deps: CredentialDeps,
  asked: HostGrant,
  { meetingId, hostUserId }: { meetingId: string; hostUserId: string },
): Promise<boolean> {
  return deps.db.transaction(async (tx) => {
    const reaching = await tx.query<{ grantId: string; now: Date }>(sql`
      SELECT g.id AS "grantId", date_trunc('milliseconds', now()) AS now
      FROM provider_grant g JOIN provider_app a ON a.id = g.app_id
      WHERE g.tenant_id = ${asked.tenantId}::uuid AND g.provider_account_id = ${asked.providerAccountId}
        AND a.environment = ${asked.environment}::"ProviderEnvironment" AND g.health_status <> 'REVOKED'
        AND (g.kind = 'INSTALLATION' OR g.provider_user_id = ${hostUserId})
      ORDER BY g.id`);
    const [first] = reaching;
    if (first === undefined) return false;
    const row = { tenantId: asked.tenantId, meetingId, hostUserId, isPersonal: false, isListed: false, isGone: false };
    await writeDirectory(
      tx,
      reaching.map(({ grantId }) => ({ ...row, grantId })),
      first.now,
    );
    return true;
  });
}
