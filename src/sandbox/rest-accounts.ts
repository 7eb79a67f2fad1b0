import { json, type Reply } from './http.js';
import type { Token } from './model.js';
import type { World } from './world.js';

/** `GET /accounts/{accountId}/settings`, by id or `me`: a token reads the settings of its own account. */
export function readAccountSettings(
  _world: World,
  { token, params }: { token: Token; params: Record<string, string> },
): Reply {
  const asked = params['accountId'] ?? '';
  if (asked !== 'me' && asked !== token.accountId) {
    return json(404, { code: 2001, message: `Account does not exist: ${asked}.` }, 'unknown-account');
  }
  const settings = {
    schedule_meeting: { host_video: false, participant_video: false, use_pmi_for_scheduled_meetings: false },
    recording: { local_recording: true, cloud_recording: true, auto_recording: 'none' },
  };
  return json(200, settings, 'read');
}
