"""Whisper's encoder with a CTC head, at a recording's own length and with a mask."""

import torch
import torch.nn.functional as F
from transformers import WhisperConfig, WhisperModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import CausalLMOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder, WhisperPreTrainedModel


class WhisperForCTC(WhisperPreTrainedModel):
    """transformers' WhisperEncoder and a linear output layer over characters.

    Whisper is trained on recordings padded to 30 seconds. Here the table of positions is cut to the recording, as it
    is for every shorter one that it was trained to transcribe before the silence. What lies behind a row's mask
    reaches no frame before it: it is zero for the convolutions and hidden from the attention.
    """

    _keys_to_ignore_on_load_unexpected = (r"^model\.decoder", r"^decoder", r"^proj_out")

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__(config)
        self.encoder = WhisperEncoder(config)
        self.lm_head = torch.nn.Linear(config.d_model, config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> CausalLMOutput:
        """As transformers' CTC models.

        Args:
            input_features: float [batch, mel bins, mel frames], at most as many as the positions allow.
            attention_mask: [batch, mel frames], 1 where the row's recording is.
            labels: [batch, characters], -100 where padded.
            output_hidden_states: Whether to return the input of the first layer and the output of each layer
                [batch, frames, hidden], the last one after the encoder's layer norm.
        """
        if attention_mask is None:
            attention_mask = input_features.new_ones(input_features.shape[0], input_features.shape[2]).long()
        if self.training:
            input_features = WhisperModel._mask_input_features(self, input_features.clone(), attention_mask)
        mask = attention_mask[:, None].to(input_features.dtype)
        lengths = self._get_feat_extract_output_lengths(attention_mask.sum(-1))
        x = F.gelu(self.encoder.conv1(input_features * mask)) * mask
        x = F.gelu(self.encoder.conv2(x)).transpose(1, 2)  # [batch, frames, hidden]
        x = x + self.encoder.embed_positions.weight[: x.shape[1]]
        x = F.dropout(x, self.encoder.dropout, self.training)
        frames = (torch.arange(x.shape[1], device=x.device) < lengths[:, None]).long()
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=x, attention_mask=frames)
        hidden = [x]
        for layer in self.encoder.layers:
            if not (self.training and self.config.encoder_layerdrop and torch.rand([]) < self.config.encoder_layerdrop):
                x = layer(x, mask)
            hidden.append(x)
        hidden[-1] = x = self.encoder.layer_norm(x)
        logits = self.lm_head(x)
        loss = None
        if labels is not None:
            valid = labels >= 0
            loss = F.ctc_loss(
                logits.float().log_softmax(-1).transpose(0, 1),
                labels[valid],
                lengths,
                valid.sum(-1),
                blank=self.config.pad_token_id,
                reduction=self.config.ctc_loss_reduction,
                zero_infinity=self.config.ctc_zero_infinity,
            )
        return CausalLMOutput(loss=loss, logits=logits, hidden_states=tuple(hidden) if output_hidden_states else None)
