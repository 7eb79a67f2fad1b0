import { z } from 'zod';

/**
 * Behaviour that can be changed while the sandbox runs: lifetimes, delays, and the points where Zoom is undocumented or
 * has answered differently over the years.
 */
export const knobsShape = z.strictObject({
  accessTokenSeconds: z.int().min(1).max(86_400),
  refreshTokenDays: z.number().positive().max(10_000),
  codeSeconds: z.int().min(1).max(86_400),
  /** Wait before a token request is performed, on the sandbox's clock. */
  tokenDelayMs: z.int().min(0),
  /** Wait before a REST request is performed, on the sandbox's clock. */
  restDelayMs: z.int().min(0),
  /**
   * What happens to a refresh token that was traded in before: `strict` refuses it, `tolerance` takes the last
   * `tolerance` generations, `grace` takes it for `graceSeconds`, `family-revoke` refuses it and kills the whole grant.
   */
  refreshMode: z.enum(['strict', 'tolerance', 'grace', 'family-revoke']),
  graceSeconds: z.number().min(0),
  tolerance: z.int().min(0),
  /** Whether earlier access tokens live on after a refresh. Zoom does not say. */
  accessTokenSurvivesRefresh: z.boolean(),
  /** A dead refresh token answers 401 `invalid_request`, as Zoom did before August 2022. */
  legacyDeadRefresh: z.boolean(),
  /** A bad code answers `invalid_request` and repeats the code in `reason`, as Zoom did in 2020. */
  legacyCodeError: z.boolean(),
  /** `api_url` of token responses: the sandbox's own origin, another origin, or null to leave the field out. */
  apiUrl: z.union([z.literal('sandbox'), z.url(), z.null()]),
  denyWithoutRedirect: z.boolean(),
  /** Refuses `http://localhost` redirects, registered or not. */
  refuseLocalhostRedirect: z.boolean(),
  /** A user who granted the same scopes before is sent back as soon as they are picked. */
  skipConsentWhenGranted: z.boolean(),
  /** Accounts whose users must ask an admin before they can authorize any app. */
  preApprovalAccountIds: z.array(z.string()),
  /** Where `app_deauthorized` carries `event_ts`: documents show all three. */
  webhookEventTsPlacement: z.enum(['top', 'payload', 'payload-string']),
  /** Sends `app_deauthorized` for published apps only, also when the app is removed through the control API. */
  strictDeauthorization: z.boolean(),
  webhookRetryOn4xx: z.boolean(),
  /** Retries carry a new timestamp, signature and tracking id instead of the first attempt's. */
  webhookResignRetries: z.boolean(),
  /**
   * Requests a second that an account may make of the calls that Zoom calls light, and of the medium ones, over all
   * apps; null: any number.
   */
  lightPerSecond: z.int().min(1).nullable(),
  mediumPerSecond: z.int().min(1).nullable(),
  /** Requests of each weight that an account may make in a day (UTC); null: any number. */
  requestsPerDay: z.int().min(1).nullable(),
  /** Zoom has sent headers about its limits, and promises them nowhere. */
  rateLimitHeaders: z.boolean(),
  /** How many extra copies of each event are sent. */
  webhookDuplicates: z.int().min(0).max(10),
});

export type Knobs = z.output<typeof knobsShape>;

/** What Zoom is known or believed to do today. */
export const DEFAULT_KNOBS: Knobs = {
  accessTokenSeconds: 3600,
  refreshTokenDays: 90,
  codeSeconds: 300,
  tokenDelayMs: 0,
  restDelayMs: 0,
  refreshMode: 'strict',
  graceSeconds: 60,
  tolerance: 1,
  accessTokenSurvivesRefresh: true,
  legacyDeadRefresh: false,
  legacyCodeError: false,
  apiUrl: 'sandbox',
  denyWithoutRedirect: false,
  refuseLocalhostRedirect: false,
  skipConsentWhenGranted: false,
  preApprovalAccountIds: [],
  webhookEventTsPlacement: 'top',
  strictDeauthorization: false,
  webhookRetryOn4xx: false,
  webhookResignRetries: false,
  lightPerSecond: null,
  mediumPerSecond: null,
  requestsPerDay: null,
  rateLimitHeaders: true,
  webhookDuplicates: 0,
};
