/* Private to api: how a refused purchase is answered. */
#ifndef DOORBUSTER_API_REFUSALS_H
#define DOORBUSTER_API_REFUSALS_H

#include "api_internal.h"

/* Any refusal but REFUSAL_ALREADY_ORDERED, whose answer is an order. */
void refusal_reply(struct api *api, struct http_request *request, const struct purchase *purchase,
                   bool as_cart);
void refusal_reply_rejected(struct http_request *request);
void refusals_free_answers(struct api *api);

#endif
