// The camera: opened by a click, closed for good, and its picture as a small JPEG text.

const LONG_SIDE_PX = 480;
const QUALITY = 0.8;
const MOST_TEXT = 250_000; // a request may have 262,144 bytes

/** Say in plain words why there is no camera, and what to do. */
function cameraProblem(error) {
  switch (error?.name) {
    case 'NotAllowedError':
    case 'SecurityError':
      return gettext('The browser blocks the camera for this page. Allow it in the address bar, then start again.');
    case 'NotFoundError':
    case 'OverconstrainedError':
      return gettext('No camera was found. Connect one, then start again.');
    case 'NotReadableError':
    case 'AbortError':
      return gettext('The camera delivers no picture; another program may be using it. Close that program, then start again.');
    default:
      return gettext('The camera could not be started: {reason}', { reason: String(error?.message ?? error) });
  }
}

/** Ask for the camera; returns its stream, or throws as the browser does. */
function openCamera() {
  return navigator.mediaDevices.getUserMedia({
    audio: false,
    video: { facingMode: 'user', width: { ideal: 640 }, height: { ideal: 480 }, frameRate: { ideal: 30 } },
  });
}

/** Switch the camera off: when all its tracks have ended, its light goes out. */
function endTracks(stream) {
  for (const track of stream?.getTracks() ?? []) track.stop();
}

/** Return a function that gives the picture of a video as JPEG in base64, null as long as there is none. */
function makeShutter(video) {
  const small = document.createElement('canvas');
  return () => {
    const { videoWidth: width, videoHeight: height } = video;
    if (!width || !height || video.readyState < 2) return null;
    const scale = Math.min(1, LONG_SIDE_PX / Math.max(width, height));
    Object.assign(small, { width: Math.max(1, Math.round(width * scale)), height: Math.max(1, Math.round(height * scale)) });
    small.getContext('2d').drawImage(video, 0, 0, small.width, small.height);
    const text = small.toDataURL('image/jpeg', QUALITY).split(',')[1] ?? '';
    Object.assign(small, { width: 0, height: 0 }); // no pixel stays
    return text && text.length <= MOST_TEXT ? text : null;
  };
}
