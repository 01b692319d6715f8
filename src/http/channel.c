/* Replies without an end: a channel's frames go to every stream, for Server-Sent Events.
 *
 * Runs on the loop's thread of a worker. A channel owns the newest frame and its streams; a stream owns nothing but a share of the frame that it is
 * sending. So what a slow client costs is bounded: when it has taken a frame it gets the newest there is, however many were made meanwhile. One that
 * takes nothing for the time that an answer may take is hung up on (connection.c).
 *
 *   waiting (suspended) --a frame--> sending --all of it taken--> is there a newer one? yes: sending, no: waiting
 *                                       |
 *                                       +--the client is gone, or the channel is closed--> freed by libmicrohttpd
 *
 * libmicrohttpd calls the reader whenever the socket has room; nothing to send means suspending the connection there, and resuming it with the
 * next frame. A client that hangs up while suspended is noticed with the next frame. */
#include "http_internal.h"

#include "doorbuster/check.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 4096 /* libmicrohttpd's buffer for clients that do not speak HTTP/1.1 */

struct frame {
    size_t uses;
    size_t bytes;
    char text[];
};

struct stream {
    struct http_channel *channel;
    struct http_connection *connection;
    struct frame *frame; /* NULL: nothing to send */
    size_t sent;
    uint64_t seen; /* number of the last frame that it took up */
    bool is_suspended;
    struct stream *previous, *next;
};

struct http_channel {
    struct http_server *server;
    const char *content_type;
    size_t streams_max, stream_count;
    struct stream *streams;
    struct frame *newest; /* NULL: none yet */
    uint64_t number;      /* of the newest; 0: none */
    bool is_closed;
};

static void let_go(struct frame **slot)
{
    struct frame *frame = *slot;
    *slot = NULL;
    if (frame && --frame->uses == 0)
        free(frame);
}

static void take_up_newest(struct stream *stream)
{
    const struct http_channel *channel = stream->channel;
    let_go(&stream->frame);
    if (stream->seen == channel->number)
        return;
    stream->frame = channel->newest;
    stream->frame->uses++;
    stream->sent = 0;
    stream->seen = channel->number;
    http_connection_move(stream->connection, CONNECTION_STREAMING); /* it has as long again for this one */
}

/* Called by libmicrohttpd when the socket has room, and after a resume. */
static ssize_t read_cb(void *context, uint64_t position, char *out, size_t bytes_max)
{
    struct stream *stream = context;
    (void)position;
    if (!stream->frame || stream->sent == stream->frame->bytes)
        take_up_newest(stream);
    if (!stream->frame && stream->channel->is_closed)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (!stream->frame) {
        stream->is_suspended = true;
        MHD_suspend_connection(stream->connection->mhd);
        return 0;
    }
    size_t left = stream->frame->bytes - stream->sent, bytes = left < bytes_max ? left : bytes_max;
    memcpy(out, stream->frame->text + stream->sent, bytes);
    stream->sent += bytes;
    stream->channel->server->events++;
    return (ssize_t)bytes;
}

/* Called by libmicrohttpd when it needs the response no more. */
static void free_cb(void *context)
{
    struct stream *stream = context;
    struct http_channel *channel = stream->channel;
    let_go(&stream->frame);
    *(stream->previous ? &stream->previous->next : &channel->streams) = stream->next;
    if (stream->next)
        stream->next->previous = stream->previous;
    channel->stream_count--;
    free(stream);
}

static void resume_all(struct http_channel *channel)
{
    for (struct stream *stream = channel->streams; stream; stream = stream->next) {
        if (!stream->is_suspended)
            continue;
        stream->is_suspended = false;
        MHD_resume_connection(stream->connection->mhd);
    }
    http_server_has_work(channel->server);
}

struct http_channel *http_channel_new(struct http_server *server, const char *content_type,
                                      size_t streams_max)
{
    struct http_channel *channel = calloc(1, sizeof *channel);
    CHECK(channel);
    channel->server = server;
    channel->content_type = content_type;
    channel->streams_max = streams_max;
    return channel;
}

static struct stream *new_stream(struct http_channel *channel, struct http_connection *connection)
{
    struct stream *stream = calloc(1, sizeof *stream);
    CHECK(stream);
    stream->channel = channel;
    stream->connection = connection;
    stream->next = channel->streams;
    if (stream->next)
        stream->next->previous = stream;
    channel->streams = stream;
    channel->stream_count++;
    return stream;
}

static ssize_t end_cb(void *context, uint64_t position, char *out, size_t bytes_max)
{
    (void)context;
    (void)position;
    (void)out;
    (void)bytes_max;
    return MHD_CONTENT_READER_END_OF_STREAM;
}

/* To HEAD. libmicrohttpd 0.9.75 would write the last chunk of the body that there is not, in front of the next answer:
 * so none in chunks, and the end of the connection is the end of it. */
static void reply_head_alone(struct http_request *request, const struct http_channel *channel)
{
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 1, end_cb, NULL, NULL);
    CHECK(response);
    CHECK(MHD_set_response_options(response, MHD_RF_HTTP_1_0_COMPATIBLE_STRICT, MHD_RO_END) == MHD_YES);
    http_reply_stream(request, channel->content_type, response);
}

bool http_reply_channel(struct http_request *request, struct http_channel *channel)
{
    if (channel->is_closed || channel->stream_count >= channel->streams_max)
        return false;
    if (!request->connection) { /* nobody is there to listen */
        http_reply_bytes(request, 200, channel->content_type, "", 0);
        return true;
    }
    if (strcmp(request->method_name, "HEAD") == 0) {
        reply_head_alone(request, channel);
        return true;
    }
    struct stream *stream = new_stream(channel, request->connection);
    struct MHD_Response *response =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, BLOCK_BYTES, read_cb, stream, free_cb);
    CHECK(response);
    http_reply_stream(request, channel->content_type, response);
    return true;
}

void http_channel_send(struct http_channel *channel, const char *text, size_t bytes)
{
    if (channel->is_closed)
        return;
    struct frame *frame = malloc(sizeof *frame + bytes);
    CHECK(frame);
    frame->uses = 1;
    frame->bytes = bytes;
    memcpy(frame->text, text, bytes);
    let_go(&channel->newest);
    channel->newest = frame;
    channel->number++;
    resume_all(channel);
}

size_t http_channel_streams(const struct http_channel *channel)
{
    return channel->stream_count;
}

void http_channel_close(struct http_channel *channel)
{
    channel->is_closed = true;
    resume_all(channel);
}

void http_channel_free(struct http_channel **slot)
{
    struct http_channel *channel = *slot;
    *slot = NULL;
    if (!channel)
        return;
    CHECK(channel->stream_count == 0);
    let_go(&channel->newest);
    free(channel);
}
