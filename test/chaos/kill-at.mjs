// Loaded before the server (`node --import`): ends or freezes the process at one point of a refresh, from outside of
// its code. LATCHKEY_CHAOS_AT names the point, LATCHKEY_CHAOS_NTH which time it is met, LATCHKEY_CHAOS_SIGNAL how.
import { subscribe } from 'node:diagnostics_channel';

const REFRESHES = 'latchkey:refresh';
const SENT = 'undici:request:bodySent';
const HEADERS = 'undici:request:headers';

const isRefresh = ({ request }) =>
  request.path.endsWith('/oauth/token') && String(request.body ?? '').includes('grant_type=refresh_token');

const isStep = (wanted) => (message) => message.step === wanted;

/** In the order in which a refresh meets them. */
const POINTS = {
  leased: [REFRESHES, isStep('leased')],
  sent: [SENT, isRefresh],
  headers: [HEADERS, isRefresh],
  answered: [REFRESHES, isStep('answered')],
  spooled: [REFRESHES, isStep('spooled')],
  committing: [REFRESHES, isStep('committing')],
  committed: [REFRESHES, isStep('committed')],
};

const {
  LATCHKEY_CHAOS_AT: point,
  LATCHKEY_CHAOS_NTH: nth = '1',
  LATCHKEY_CHAOS_SIGNAL: signal = 'SIGKILL',
} = process.env;
const [channel, fits] = POINTS[point];

let left = Number(nth);
subscribe(channel, (message) => {
  if (!fits(message)) return;
  left -= 1;
  if (left === 0) process.kill(process.pid, signal);
});
