//! The variants of the recurrent cells and models, in one place: the contract and the gradient checks go through all of them.

/// Calls the macro `$then` with each option of the cells alone, and with all options of a cell together.
///
/// A line is `name: |input, hidden| builder;`, where `F` is the element type in scope at the call of the macro.
macro_rules! with_cell_variants {
    ($then:ident) => {
        $then! {
            rnn_cell: |input, hidden| RnnCell::<F>::builder(input, hidden);
            rnn_cell_relu: |input, hidden| RnnCell::<F>::builder(input, hidden)
                .bias_ih(0.3).nonlinearity(Nonlinearity::Relu);
            rnn_cell_softsign: |input, hidden| RnnCell::<F>::builder(input, hidden).nonlinearity(Nonlinearity::Softsign);
            rnn_cell_clip: |input, hidden| RnnCell::<F>::builder(input, hidden)
                .nonlinearity(Nonlinearity::ScaledTanh { scale: 1.7, slope: 0.7 }).bias_ih(Init::Uniform { bound: 3.0 }).clip(1.0);
            rnn_cell_without_bias: |input, hidden| RnnCell::<F>::builder(input, hidden).bias(false);
            rnn_cell_layer_norm: |input, hidden| RnnCell::<F>::builder(input, hidden).layer_norm();
            rnn_cell_recurrent_dropout: |input, hidden| RnnCell::<F>::builder(input, hidden).recurrent_dropout(0.4);
            rnn_cell_zoneout: |input, hidden| RnnCell::<F>::builder(input, hidden).zoneout(0.4);
            rnn_cell_heads: |input, hidden| RnnCell::<F>::builder(input, hidden).heads(hidden);
            rnn_cell_all_variants: |input, hidden| RnnCell::<F>::builder(input, hidden)
                .layer_norm().heads(if hidden % 2 == 0 { 2 } else { hidden }).recurrent_dropout(0.3).zoneout(0.3);
            rnn_cell_all_variants_softplus: |input, hidden| RnnCell::<F>::builder(input, hidden)
                .nonlinearity(Nonlinearity::Softplus).clip(20.0).layer_norm().recurrent_dropout(0.3).zoneout(0.3);

            lstm_cell: |input, hidden| LstmCell::<F>::builder(input, hidden).pytorch();
            lstm_cell_without_bias: |input, hidden| LstmCell::<F>::builder(input, hidden).bias(false);
            lstm_cell_chrono: |input, hidden| LstmCell::<F>::builder(input, hidden).chrono(20.0);
            lstm_cell_projected: |input, hidden| LstmCell::<F>::builder(input, hidden).projection(hidden - 1);
            lstm_cell_peepholes: |input, hidden| LstmCell::<F>::builder(input, hidden).peepholes();
            lstm_cell_gate_activation: |input, hidden| LstmCell::<F>::builder(input, hidden)
                .gate_activation(Nonlinearity::HARD_SIGMOID).input_bias(4.0);
            lstm_cell_candidate_activation: |input, hidden| LstmCell::<F>::builder(input, hidden)
                .candidate_activation(Nonlinearity::Softplus);
            lstm_cell_output_activation: |input, hidden| LstmCell::<F>::builder(input, hidden)
                .output_activation(Nonlinearity::Softsign);
            lstm_cell_clip: |input, hidden| LstmCell::<F>::builder(input, hidden).forget_bias(5.0).clip(2.0);
            lstm_cell_coupled: |input, hidden| LstmCell::<F>::builder(input, hidden).coupled();
            lstm_cell_layer_norm: |input, hidden| LstmCell::<F>::builder(input, hidden).layer_norm();
            lstm_cell_recurrent_dropout: |input, hidden| LstmCell::<F>::builder(input, hidden).recurrent_dropout(0.4);
            lstm_cell_zoneout: |input, hidden| LstmCell::<F>::builder(input, hidden).zoneout(0.3, 0.4);
            lstm_cell_heads: |input, hidden| LstmCell::<F>::builder(input, hidden).heads(hidden);
            lstm_cell_peepholes_coupled: |input, hidden| LstmCell::<F>::builder(input, hidden).peepholes().coupled();
            lstm_cell_peepholes_layer_norm: |input, hidden| LstmCell::<F>::builder(input, hidden).peepholes().layer_norm();
            lstm_cell_all_variants: |input, hidden| LstmCell::<F>::builder(input, hidden)
                .peepholes().coupled().layer_norm().projection(hidden - 1).recurrent_dropout(0.3).zoneout(0.3, 0.2);
            lstm_cell_all_variants_activations: |input, hidden| LstmCell::<F>::builder(input, hidden)
                .gate_activation(Nonlinearity::Softsign).candidate_activation(Nonlinearity::Silu)
                .output_activation(Nonlinearity::Affine { slope: 0.5, offset: 0.1 }).clip(20.0)
                .peepholes().coupled().layer_norm().projection(hidden - 1).recurrent_dropout(0.3).zoneout(0.3, 0.2);
            lstm_cell_all_but_coupled_activations: |input, hidden| LstmCell::<F>::builder(input, hidden)
                .candidate_activation(Nonlinearity::Elu { alpha: 1.0 }).output_activation(Nonlinearity::Gelu).clip(20.0)
                .peepholes().projection(hidden - 1).recurrent_dropout(0.3).zoneout(0.3, 0.2).bias(false);

            gru_cell: |input, hidden| GruCell::<F>::builder(input, hidden).pytorch();
            gru_cell_without_bias: |input, hidden| GruCell::<F>::builder(input, hidden).bias(false);
            gru_cell_reset_before: |input, hidden| GruCell::<F>::builder(input, hidden)
                .reset(GruReset::BeforeProduct).pytorch();
            gru_cell_gate_activation: |input, hidden| GruCell::<F>::builder(input, hidden)
                .gate_activation(Nonlinearity::HardSigmoid { slope: 0.2, offset: 0.5 }).reset_bias(4.0);
            gru_cell_candidate_activation: |input, hidden| GruCell::<F>::builder(input, hidden)
                .candidate_activation(Nonlinearity::Softsign);
            gru_cell_clip: |input, hidden| GruCell::<F>::builder(input, hidden).reset_bias(5.0).clip(2.0);
            gru_cell_reset_before_activations: |input, hidden| GruCell::<F>::builder(input, hidden)
                .reset(GruReset::BeforeProduct).gate_activation(Nonlinearity::Softsign)
                .candidate_activation(Nonlinearity::Softplus).reset_bias(5.0).clip(2.5);
            gru_cell_layer_norm: |input, hidden| GruCell::<F>::builder(input, hidden).layer_norm();
            gru_cell_recurrent_dropout: |input, hidden| GruCell::<F>::builder(input, hidden).recurrent_dropout(0.4);
            gru_cell_zoneout: |input, hidden| GruCell::<F>::builder(input, hidden).zoneout(0.4);
            gru_cell_heads: |input, hidden| GruCell::<F>::builder(input, hidden).heads(hidden);
            gru_cell_all_variants: |input, hidden| GruCell::<F>::builder(input, hidden)
                .reset(GruReset::BeforeProduct).layer_norm().heads(if hidden % 2 == 0 { 2 } else { hidden }).recurrent_dropout(0.3).zoneout(0.3);
            gru_cell_all_variants_activations: |input, hidden| GruCell::<F>::builder(input, hidden)
                .gate_activation(Nonlinearity::Softsign).candidate_activation(Nonlinearity::Gelu).clip(20.0)
                .reset(GruReset::BeforeProduct).layer_norm().recurrent_dropout(0.3).zoneout(0.3);
            gru_cell_all_but_reset: |input, hidden| GruCell::<F>::builder(input, hidden)
                .layer_norm().recurrent_dropout(0.3).zoneout(0.3).bias(false);

            mgu_cell: |input, hidden| MguCell::<F>::builder(input, hidden).pytorch();
            mgu_cell_without_bias: |input, hidden| MguCell::<F>::builder(input, hidden).bias(false);
            mgu_cell_layer_norm: |input, hidden| MguCell::<F>::builder(input, hidden).layer_norm();
            mgu_cell_recurrent_dropout: |input, hidden| MguCell::<F>::builder(input, hidden).recurrent_dropout(0.4);
            mgu_cell_zoneout: |input, hidden| MguCell::<F>::builder(input, hidden).zoneout(0.4);
            mgu_cell_heads: |input, hidden| MguCell::<F>::builder(input, hidden).heads(hidden);
            mgu_cell_all_variants: |input, hidden| MguCell::<F>::builder(input, hidden)
                .layer_norm().heads(if hidden % 2 == 0 { 2 } else { hidden }).recurrent_dropout(0.3).zoneout(0.3);

            min_gru_cell: |input, hidden| MinGruCell::<F>::builder(input, hidden).pytorch();
            min_gru_cell_without_bias: |input, hidden| MinGruCell::<F>::builder(input, hidden).bias(false);
            min_gru_cell_layer_norm: |input, hidden| MinGruCell::<F>::builder(input, hidden).layer_norm();
            min_gru_cell_zoneout: |input, hidden| MinGruCell::<F>::builder(input, hidden).zoneout(0.4);
            min_gru_cell_all_variants: |input, hidden| MinGruCell::<F>::builder(input, hidden).layer_norm().zoneout(0.3);

            min_lstm_cell: |input, hidden| MinLstmCell::<F>::builder(input, hidden).pytorch();
            min_lstm_cell_without_bias: |input, hidden| MinLstmCell::<F>::builder(input, hidden).bias(false);
            min_lstm_cell_chrono: |input, hidden| MinLstmCell::<F>::builder(input, hidden).chrono(20.0);
            min_lstm_cell_layer_norm: |input, hidden| MinLstmCell::<F>::builder(input, hidden).layer_norm();
            min_lstm_cell_zoneout: |input, hidden| MinLstmCell::<F>::builder(input, hidden).zoneout(0.4);
            min_lstm_cell_all_variants: |input, hidden| MinLstmCell::<F>::builder(input, hidden).layer_norm().zoneout(0.3);

            slstm_cell: |input, hidden| SlstmCell::<F>::builder(input, hidden);
            slstm_cell_writes: |input, hidden| SlstmCell::<F>::builder(input, hidden).input_bias(3.0);
            slstm_cell_without_bias: |input, hidden| SlstmCell::<F>::builder(input, hidden).bias(false);
            slstm_cell_exponential_forget: |input, hidden| SlstmCell::<F>::builder(input, hidden).exponential_forget();
            slstm_cell_heads: |input, hidden| SlstmCell::<F>::builder(input, hidden).heads(hidden);
            slstm_cell_layer_norm: |input, hidden| SlstmCell::<F>::builder(input, hidden).layer_norm().input_bias(3.0);
            slstm_cell_recurrent_dropout: |input, hidden| SlstmCell::<F>::builder(input, hidden).recurrent_dropout(0.4);
            slstm_cell_zoneout: |input, hidden| SlstmCell::<F>::builder(input, hidden).zoneout(0.4);
            slstm_cell_all_variants: |input, hidden| SlstmCell::<F>::builder(input, hidden).exponential_forget()
                .input_bias(2.0).layer_norm().heads(if hidden % 2 == 0 { 2 } else { hidden }).recurrent_dropout(0.3).zoneout(0.3);
        }
    };
}

/// Calls the macro `$then` with models of several layers in one direction, in the form of [`with_cell_variants`].
macro_rules! with_recurrent_models {
    ($then:ident) => {
        $then! {
            rnn: |input, hidden| Rnn::<F>::builder(input, hidden).num_layers(3).dropout(0.2);
            lstm: |input, hidden| Lstm::<F>::builder(input, hidden).num_layers(3).dropout(0.3);
            lstm_of_one_layer: |input, hidden| Lstm::<F>::builder(input, hidden);
            lstm_projected: |input, hidden| Lstm::<F>::builder(input, hidden).num_layers(2).projection(hidden - 1);
            gru: |input, hidden| Gru::<F>::builder(input, hidden).num_layers(3).dropout(0.2).pytorch();
            mgu: |input, hidden| Mgu::<F>::builder(input, hidden).num_layers(2);
            min_gru: |input, hidden| MinGru::<F>::builder(input, hidden).num_layers(2).dropout(0.2);
            min_lstm: |input, hidden| MinLstm::<F>::builder(input, hidden).num_layers(2).dropout(0.2);
            slstm: |input, hidden| Slstm::<F>::builder(input, hidden).num_layers(2).dropout(0.2).input_bias(3.0);
        }
    };
}

/// Calls the macro `$then` with models in both directions, in the form of [`with_cell_variants`].
macro_rules! with_bidirectional_models {
    ($then:ident) => {
        $then! {
            bi_rnn: |input, hidden| Rnn::<F>::builder(input, hidden).num_layers(2).bidirectional();
            bi_lstm: |input, hidden| Lstm::<F>::builder(input, hidden).num_layers(3).dropout(0.3).bidirectional();
            bi_lstm_projected: |input, hidden|
                Lstm::<F>::builder(input, hidden).num_layers(2).projection(hidden - 1).bidirectional();
            bi_lstm_all_variants: |input, hidden| Lstm::<F>::builder(input, hidden).num_layers(2).bidirectional()
                .peepholes().coupled().layer_norm().projection(hidden - 1).recurrent_dropout(0.3)
                .zoneout(0.3, 0.2).dropout(0.2);
            bi_lstm_activations: |input, hidden| Lstm::<F>::builder(input, hidden).num_layers(2).bidirectional()
                .candidate_activation(Nonlinearity::Softsign).output_activation(Nonlinearity::Softplus).clip(20.0);
            bi_gru: |input, hidden| Gru::<F>::builder(input, hidden).bidirectional();
            bi_gru_of_two_layers: |input, hidden| Gru::<F>::builder(input, hidden).num_layers(2).bidirectional();
            bi_gru_all_variants: |input, hidden| Gru::<F>::builder(input, hidden).num_layers(2).bidirectional()
                .reset(GruReset::BeforeProduct).layer_norm().recurrent_dropout(0.3).zoneout(0.3).dropout(0.2);
            bi_mgu: |input, hidden| Mgu::<F>::builder(input, hidden).num_layers(2).bidirectional();
            bi_min_gru: |input, hidden| MinGru::<F>::builder(input, hidden).num_layers(2).bidirectional();
            bi_min_lstm: |input, hidden| MinLstm::<F>::builder(input, hidden).num_layers(2).bidirectional();
            bi_slstm: |input, hidden| Slstm::<F>::builder(input, hidden).num_layers(2).input_bias(3.0).bidirectional();
        }
    };
}
